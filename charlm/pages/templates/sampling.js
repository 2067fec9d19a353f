"use strict";
/* How a character is drawn: the same random numbers and the same rule as `charlm sample`.

   sampling.noise(seed)                    -> function: n -> the number of draw n, in [0, 1)
   sampling.distribution(logp, rule)       -> the probabilities that are drawn from
   sampling.draw(logp, rule, number)       -> the id drawn
   A rule is {temperature, topK, topP}; topK 0 keeps all. Runs in the page (for the bars) and in the worker. */
const sampling = (() => {
  const WORD = 0xffffffffn;
  const LONG = (1n << 64n) - 1n;
  const WIDE = (1n << 128n) - 1n;

  /* NumPy's SeedSequence for the entropy [seed, 0]: hashes it into a pool of four words, and the pool into four
     numbers of 64 bits. */
  function seedNumbers(seed) {
    const words = [Number(seed & WORD)];
    if (seed >> 32n) words.push(Number(seed >> 32n));
    words.push(0); // the number of the stream
    let constant = 0x43b0d7e5;
    const hash = (value) => {
      value ^= constant;
      constant = Math.imul(constant, 0x931e8875);
      value = Math.imul(value, constant);
      return (value ^ (value >>> 16)) >>> 0;
    };
    const mix = (x, y) => {
      const mixed = (Math.imul(0xca01f9dd, x) - Math.imul(0x4973f715, y)) | 0;
      return (mixed ^ (mixed >>> 16)) >>> 0;
    };
    const pool = [0, 1, 2, 3].map((place) => hash(words[place] || 0));
    for (let from = 0; from < 4; from += 1) {
      for (let to = 0; to < 4; to += 1) if (to !== from) pool[to] = mix(pool[to], hash(pool[from]));
    }
    constant = 0x8b51f9dd;
    const out = [0, 1, 2, 3, 4, 5, 6, 7].map((place) => {
      let value = pool[place % 4] ^ constant;
      constant = Math.imul(constant, 0x58f38ded);
      value = Math.imul(value, constant);
      return BigInt((value ^ (value >>> 16)) >>> 0);
    });
    return [0, 2, 4, 6].map((place) => out[place] | (out[place + 1] << 32n));
  }

  /* PCG64 (O'Neill 2014, XSL-RR): a linear congruential generator of 128 bits, of which 64 are given out. */
  function noise(seed) {
    const numbers = seedNumbers(BigInt(seed));
    const increment = ((((numbers[2] << 64n) | numbers[3]) << 1n) | 1n) & WIDE;
    const step = (state) => (state * 0x2360ed051fc65da44385df649fccf645n + increment) & WIDE;
    let state = step((step(0n) + ((numbers[0] << 64n) | numbers[1])) & WIDE);
    const drawn = [];
    return (number) => {
      while (drawn.length <= number) {
        state = step(state);
        const folded = (state >> 64n) ^ (state & LONG);
        const turn = state >> 122n;
        const turned = ((folded >> turn) | (folded << ((64n - turn) & 63n))) & LONG;
        drawn.push(Number(turned >> 11n) / 2 ** 53);
      }
      return drawn[number];
    };
  }

  function best(logp) {
    let found = 0;
    for (let id = 1; id < logp.length; id += 1) if (logp[id] > logp[found]) found = id;
    return found;
  }

  const isGreedy = ({ temperature, topK }) => temperature < 1e-300 || topK === 1;

  /* Temperature first, then top-k, then top-p; of equally probable characters those that come first are kept. */
  function distribution(logp, rule) {
    const p = new Float64Array(logp.length);
    const most = logp[best(logp)];
    if (isGreedy(rule)) {
      p[best(logp)] = 1;
      return p;
    }
    for (let id = 0; id < p.length; id += 1) p[id] = Math.exp((logp[id] - most) / rule.temperature);
    const cutsK = rule.topK > 0 && rule.topK < p.length;
    const order = cutsK || rule.topP < 1 ? [...p.keys()].sort((a, b) => logp[b] - logp[a] || a - b) : [];
    if (cutsK) for (const id of order.slice(rule.topK)) p[id] = 0;
    normalise(p);
    if (rule.topP < 1) {
      let before = 0;
      for (const id of order) {
        const own = p[id];
        if (before >= rule.topP) p[id] = 0;
        before += own;
      }
      normalise(p);
    }
    return p;
  }

  function normalise(p) {
    let sum = 0;
    for (const value of p) sum += value;
    for (let id = 0; id < p.length; id += 1) p[id] /= sum;
  }

  /* The first character at which the cumulative probability exceeds the number. */
  function draw(logp, rule, number) {
    if (isGreedy(rule)) return best(logp);
    const p = distribution(logp, rule);
    let total = 0;
    let last = 0;
    p.forEach((value, id) => {
      total += value;
      if (value > 0) last = id;
    });
    let cumulative = 0;
    for (let id = 0; id < last; id += 1) {
      cumulative += p[id];
      if (cumulative > number * total) return id;
    }
    return last;
  }

  return { noise, distribution, draw };
})();
