"use strict";
/* The models of a page: each reads one symbol after the other and says how probable every next one is.

   models.make(description, array) -> a model, from the description that charlm/pages/playground.py wrote, and a function
   from the description of an array to a typed array. A model has
     begin()          forgets everything
     read(id)         reads a symbol (-1: one that it does not know); gives the log-probabilities of the next one
     rowToDraw(row)   what to draw from: the same row, but where maximum likelihood is undefined
     save(), restore(saved)   what it remembers, to come back to
     units()          the outputs of the hidden units of all layers; empty for counts */
const models = (() => {
  /* Rows of a matrix in panels of eight, column by column, so that eight sums grow at once. */
  function panels(values, rows, columns) {
    const packed = new Float32Array(Math.ceil(rows / 8) * 8 * columns);
    for (let row = 0; row < rows; row += 1) {
      const begin = Math.floor(row / 8) * 8 * columns + (row % 8);
      for (let column = 0; column < columns; column += 1) packed[begin + 8 * column] = values[row * columns + column];
    }
    return packed;
  }

  /* out = matrix · x + bias, sums in double precision. The arrays `bias` and `out` have room for whole panels. */
  function product(packed, x, columns, bias, out) {
    let at = 0;
    for (let row = 0; row < out.length; row += 8) {
      let a = bias[row], b = bias[row + 1], c = bias[row + 2], d = bias[row + 3];
      let e = bias[row + 4], f = bias[row + 5], g = bias[row + 6], h = bias[row + 7];
      for (let column = 0; column < columns; column += 1) {
        const value = x[column];
        a += packed[at] * value;
        b += packed[at + 1] * value;
        c += packed[at + 2] * value;
        d += packed[at + 3] * value;
        e += packed[at + 4] * value;
        f += packed[at + 5] * value;
        g += packed[at + 6] * value;
        h += packed[at + 7] * value;
        at += 8;
      }
      out[row] = a, out[row + 1] = b, out[row + 2] = c, out[row + 3] = d;
      out[row + 4] = e, out[row + 5] = f, out[row + 6] = g, out[row + 7] = h;
    }
  }

  /* The numbers of a matrix; those of 8 or 16 bits are multiplied by the scale of their row. */
  function matrix({ rows, columns, values, scale }, array) {
    const numbers = array(values);
    if (!scale) return numbers;
    const scales = array(scale);
    const found = new Float32Array(rows * columns);
    for (let at = 0; at < found.length; at += 1) found[at] = numbers[at] * scales[Math.floor(at / columns)];
    return found;
  }

  /* A matrix with its bias, ready to be multiplied. */
  function linear(weight, bias, array) {
    const room = Math.ceil(weight.rows / 8) * 8;
    const made = { columns: weight.columns, packed: panels(matrix(weight, array), weight.rows, weight.columns) };
    made.bias = new Float32Array(room);
    if (bias) made.bias.set(array(bias));
    made.out = new Float32Array(room);
    made.apply = (x) => {
      product(made.packed, x, made.columns, made.bias, made.out);
      return made.out;
    };
    return made;
  }

  const sigmoid = (x) => 1 / (1 + Math.exp(-x));

  /* One step of each cell: the gates from the input, those from the state, and the state, which changes.
     The formulas are those of charlm/nn/cells.py. */
  const cells = {
    rnn(x, s, { h }) {
      for (let u = 0; u < h.length; u += 1) h[u] = Math.tanh(x[u] + s[u]);
    },
    gru(x, s, { h }) {
      const H = h.length;
      for (let u = 0; u < H; u += 1) {
        const r = sigmoid(x[u] + s[u]);
        const z = sigmoid(x[H + u] + s[H + u]);
        const n = Math.tanh(x[2 * H + u] + r * s[2 * H + u]);
        h[u] = n + z * (h[u] - n);
      }
    },
    lstm(x, s, { h, c, wide, project }) {
      const H = c.length;
      for (let u = 0; u < H; u += 1) {
        const i = sigmoid(x[u] + s[u]);
        const f = sigmoid(x[H + u] + s[H + u]);
        const g = Math.tanh(x[2 * H + u] + s[2 * H + u]);
        const o = sigmoid(x[3 * H + u] + s[3 * H + u]);
        c[u] = f * c[u] + i * g;
        wide[u] = o * Math.tanh(c[u]);
      }
      h.set(project ? project.apply(wide).subarray(0, h.length) : wide);
    },
  };

  /* For each symbol, and last for an unknown one, its part of the gates of the first layer. */
  function symbolGates(description, array) {
    const { symbols, embedding } = description;
    const { weight_ih: weight, bias_ih: bias } = description.cells[0];
    const width = weight.rows;
    const values = matrix(weight, array);
    const vectors = embedding && matrix(embedding, array);
    const table = new Float32Array((symbols + 1) * width);
    const biases = bias ? array(bias) : new Float32Array(width);
    for (let id = 0; id <= symbols; id += 1) {
      for (let gate = 0; gate < width; gate += 1) {
        let sum = biases[gate];
        if (id < symbols && !vectors) sum += values[gate * symbols + id];
        for (let e = 0; id < symbols && vectors && e < weight.columns; e += 1) {
          sum += values[gate * weight.columns + e] * vectors[id * weight.columns + e];
        }
        table[id * width + gate] = sum;
      }
    }
    return table;
  }

  /* What strings of the last characters add to the logits, hashed as charlm/nn/heads.py hashes them; all products are
     below 2 ** 53, so that they are exact. */
  function recentGrams({ weight, order }, array) {
    const values = matrix(weight, array);
    const rows = weight.rows - 1; // the last one is for strings with an unknown character
    const recent = new Int32Array(order - 1).fill(-1);

    function add(id, scores) {
      let key = id + 2;
      for (let back = recent.length - 1; id >= 0 && back >= 0 && recent[back] >= 0; back -= 1) {
        key = (key * 1000003 + recent[back] + 2) % 2147483647;
        const begin = (key % rows) * weight.columns;
        for (let other = 0; other < weight.columns; other += 1) scores[other] += values[begin + other];
      }
      recent.copyWithin(0, 1);
      recent[recent.length - 1] = id;
    }

    return { recent, add };
  }

  /* Attention over the places that were read: charlm/nn/look_back.py. A key is the embedded last characters, whose part of a
     score is looked up by symbol, and a map of the top layer's output. Places stand in blocks of 64, one after the other.
     A full block never changes again, so that saved states share it. */
  const BLOCK = 64;
  const NEVER = -1e9; // the score of a place that cannot be looked at
  const LEAST = 1e-30; // a probability that float32 still holds
  const PERIODS = 256; // the longest period of a text that repeats itself, in which no place is seen
  const LOOP = 12; // characters at least that such a text has repeated

  /* Whether a text repeats itself: its last max(p, LOOP) symbols also stand p places before, for a period p. */
  function repeats(text, unknown) {
    const end = text.length - 1;
    for (let period = 1; period <= PERIODS; period += 1) {
      const needed = Math.max(period, LOOP);
      if (needed + period > text.length) return false;
      let at = end;
      while (at > end - needed && text[at] === text[at - period] && text[at] !== unknown) at -= 1;
      if (at === end - needed) return true;
    }
    return false;
  }

  function lookBack(description, symbols, array) {
    const { places, characters, width, recency } = description;
    const map = (name) => linear(description[name].weight, description[name].bias, array);
    const [own, toQuery, toKey] = [map("own"), map("query_map"), map("key_map")];
    const hidden = description.key_map.weight.rows;
    const queries = matrix(description.query, array);
    const keys = matrix(description.key, array);
    const size = (symbols + 1) * width;
    const tables = Array.from({ length: characters }, (_, n) =>
      panels(keys.subarray(n * size, (n + 1) * size), symbols + 1, width));
    const room = Math.ceil((symbols + 1) / 8) * 8;
    const nothing = new Float32Array(room);
    const matches = tables.map(() => new Float32Array(room));
    const lag = Float32Array.from({ length: places + 1 }, (_, distance) => recency * Math.log(distance));
    const most = Math.ceil(places / BLOCK) + 1; // blocks
    const scores = []; // an array for each block
    const bias = new Float32Array(BLOCK);
    const mass = new Float64Array(symbols);
    const earlier = characters - 1; // symbols at the beginning of a block that belong to the one before
    const recent = new Int32Array(Math.min(places + characters, 2 * PERIODS)); // what may repeat itself
    let blocks = [];
    let read = 0; // places

    function begin() {
      blocks = [];
      read = 0;
    }

    const copied = ({ ids, keys: own }) => ({ ids: ids.slice(), keys: own.slice() });
    const forked = (list) => list.map((block, k) => (k === list.length - 1 ? copied(block) : block));

    function add(symbol, y) {
      const at = read % BLOCK;
      if (!at) {
        const ids = new Int32Array(earlier + BLOCK).fill(symbols);
        if (read) ids.set(blocks.at(-1).ids.subarray(BLOCK));
        blocks.push({ ids, keys: new Float32Array(BLOCK * hidden) });
        if (blocks.length > most) blocks.shift();
      }
      const { ids, keys: own } = blocks.at(-1);
      ids[earlier + at] = symbol;
      const key = toKey.apply(y);
      const panel = (at - (at % 8)) * hidden + (at % 8);
      for (let column = 0; column < hidden; column += 1) own[panel + 8 * column] = key[column];
      read += 1;
    }

    /* Whether the text up to the last place repeats itself. The blocks always have as many symbols as are looked at. */
    function repeating() {
      let free = recent.length;
      recent.fill(symbols);
      for (let k = blocks.length - 1; k >= 0 && free; k -= 1) {
        const to = earlier + (k === blocks.length - 1 ? ((read - 1) % BLOCK) + 1 : BLOCK);
        const part = blocks[k].ids.subarray(Math.max(k ? earlier : 0, to - free), to);
        free -= part.length;
        recent.set(part, free);
      }
      return repeats(recent, symbols);
    }

    /* What each symbol adds to a place's score if it stands there n places before. */
    function match() {
      const { ids } = blocks.at(-1);
      const end = earlier + ((read - 1) % BLOCK);
      for (let n = 0; n < characters; n += 1) {
        const begin = n * size + ids[end - n] * width;
        product(tables[n], queries.subarray(begin, begin + width), width, nothing, matches[n]);
      }
    }

    /* The scores of a block's places; the first of them was read so many places ago. */
    function score({ ids, keys: own }, distance, query, follower, out) {
      for (let i = 0; i < BLOCK; i += 1) bias[i] = distance - i >= 1 && distance - i <= places ? -lag[distance - i] : NEVER;
      for (let n = 0; n < characters; n += 1) {
        const found = matches[n];
        for (let i = 0; i < BLOCK; i += 1) bias[i] += found[ids[earlier - n + i]];
      }
      product(own, query, hidden, bias, out);
      let best = NEVER;
      for (let i = 0; i < BLOCK; i += 1) {
        const next = i + 1 < BLOCK ? ids[earlier + i + 1] : follower;
        if (ids[earlier + i] === symbols || next === symbols) out[i] = NEVER;
        if (out[i] > best) best = out[i];
      }
      return best;
    }

    /* Reads a symbol, after which the top layer's output is y; mixes what followed similar places into the row. */
    function mixInto(row, id, y) {
      add(id < 0 ? symbols : id, y);
      match();
      const query = toQuery.apply(y);
      const mine = own.apply(y)[0];
      const seen = repeating() ? 0 : blocks.length;
      let best = mine;
      const first = ((read - 1) % BLOCK) + BLOCK * (blocks.length - 1); // how long ago
      const follower = (k) => (k + 1 < blocks.length ? blocks[k + 1].ids[earlier] : symbols);
      for (let k = 0; k < seen; k += 1) {
        if (k === scores.length) scores.push(new Float32Array(BLOCK));
        best = Math.max(best, score(blocks[k], first - k * BLOCK, query, follower(k), scores[k]));
      }
      mass.fill(0);
      let total = Math.exp(mine - best);
      const network = total;
      for (let k = 0; k < seen; k += 1) {
        const { ids } = blocks[k];
        for (let i = 0; i < BLOCK; i += 1) {
          if (scores[k][i] < best - 90) continue; // too little to be seen
          const share = Math.exp(scores[k][i] - best);
          total += share;
          mass[i + 1 < BLOCK ? ids[earlier + i + 1] : follower(k)] += share;
        }
      }
      const trust = Math.log(Math.max(network / total, LEAST));
      for (let other = 0; other < symbols; other += 1) {
        const a = row[other] + trust;
        const b = Math.log(Math.max(mass[other] / total, LEAST));
        row[other] = Math.max(a, b) + Math.log1p(Math.exp(-Math.abs(a - b)));
      }
    }

    return {
      begin,
      mixInto,
      save: () => ({ blocks: forked(blocks), read }),
      restore: (saved) => {
        blocks = forked(saved.blocks);
        ({ read } = saved);
      },
    };
  }

  function network(description, array) {
    const { symbols, hidden, width } = description;
    const table = symbolGates(description, array);
    const gates = description.cells[0].weight_ih.rows;
    const layers = description.cells.map((cell, number) => ({
      input: number ? linear(cell.weight_ih, cell.bias_ih, array) : null,
      recurrent: linear(cell.weight_hh, cell.bias_hh, array),
      project: cell.weight_hr ? linear(cell.weight_hr, null, array) : null,
      h: new Float32Array(width),
      c: new Float32Array(hidden),
      wide: new Float32Array(hidden),
    }));
    const head = linear(description.head.weight, description.head.bias, array);
    const step = cells[description.cell];
    const row = new Float64Array(symbols);
    const grams = description.grams ? recentGrams(description.grams, array) : null;
    const back = description.look_back ? lookBack(description.look_back, symbols, array) : null;
    const kept = layers.flatMap((layer) => (description.cell === "lstm" ? [layer.h, layer.c] : [layer.h]));
    if (grams) kept.push(grams.recent);

    function read(id) {
      let x = id;
      for (const layer of layers) {
        const number = x < 0 ? symbols : x;
        const own = layer.input ? layer.input.apply(x) : table.subarray(number * gates, (number + 1) * gates);
        step(own, layer.recurrent.apply(layer.h), layer);
        x = layer.h;
      }
      const scores = head.apply(x);
      if (grams) grams.add(id, scores);
      logSoftmax(scores, row);
      if (back) back.mixInto(row, id, x);
      return row;
    }

    return {
      read,
      rowToDraw: (found) => found,
      begin: () => {
        kept.forEach((numbers) => numbers.fill(grams && numbers === grams.recent ? -1 : 0));
        if (back) back.begin();
      },
      save: () => ({ kept: kept.map((numbers) => numbers.slice()), back: back && back.save() }),
      restore: (saved) => {
        saved.kept.forEach((numbers, place) => kept[place].set(numbers));
        if (back) back.restore(saved.back);
      },
      units: () => layers.map((layer) => layer.h),
    };
  }

  function logSoftmax(scores, row) {
    let most = -Infinity;
    for (let id = 0; id < row.length; id += 1) most = Math.max(most, scores[id]);
    let sum = 0;
    for (let id = 0; id < row.length; id += 1) sum += Math.exp(scores[id] - most);
    const all = most + Math.log(sum);
    for (let id = 0; id < row.length; id += 1) row[id] = scores[id] - all;
  }

  /* A mixture whose weights learn while it reads: charlm/mixing/mixture.py. */
  function mixture(description, array) {
    const parts = description.models.map((part) => make(part, array));
    const { symbols, rate } = description;
    const M = parts.length;
    const weights = new Float64Array((symbols + 2) * M);
    const rows = parts.map(() => new Float64Array(symbols));
    const row = new Float64Array(symbols);
    const floor = Math.log(1e-9);
    let set = 0; // which weights mixed the rows that the next symbol judges; 0 before there are such

    function begin() {
      weights.fill(0);
      weights.set(description.weights);
      set = 0;
      parts.forEach((part) => part.begin());
    }

    function mixed() {
      row.fill(0);
      rows.forEach((own, m) => {
        const weight = weights[set * M + m] + weights[m];
        for (let id = 0; id < symbols; id += 1) row[id] += weight * own[id];
      });
      logSoftmax(row, row);
    }

    function learn(id) {
      mixed();
      rows.forEach((own, m) => {
        let expected = 0;
        for (let other = 0; other < symbols; other += 1) expected += Math.exp(row[other]) * own[other];
        const step = rate * (own[id] - expected);
        weights[set * M + m] += step;
        weights[m] += step;
      });
    }

    function read(id) {
      if (set && id >= 0) learn(id);
      parts.forEach((part, m) => {
        const found = part.read(id);
        const undefinedThere = Number.isNaN(found[0]);
        for (let other = 0; other < symbols; other += 1) {
          rows[m][other] = Math.max(floor, undefinedThere ? -Math.log(symbols) : found[other]);
        }
      });
      set = (id >= 0 ? id : symbols) + 1;
      mixed();
      return row;
    }

    return {
      begin,
      read,
      rowToDraw: (found) => found,
      save: () => ({ weights: weights.slice(), rows: rows.map((own) => own.slice()), set, parts: parts.map((part) => part.save()) }),
      restore: (saved) => {
        weights.set(saved.weights);
        rows.forEach((own, m) => own.set(saved.rows[m]));
        set = saved.set;
        parts.forEach((part, m) => part.restore(saved.parts[m]));
      },
      units: () => parts.flatMap((part) => part.units()),
    };
  }

  const kinds = { network, mixture };

  function make(description, array) {
    return kinds[description.kind](description, array);
  }

  return { make, kinds };
})();
