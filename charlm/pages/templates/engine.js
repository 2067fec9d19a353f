"use strict";
/* The worker of a page: it holds the models and their texts, so that the page itself never waits.

   It is sent {do, track, ...}, and answers with {track, ...}; a track is one model with its text:
     open      the models and their arrays, as base64 of deflated bytes        -> {opened: true}
     read      begin anew with these ids (`lead`: a symbol before them), then
               draw `count` characters with the noise of `seed`                -> {from, ids, bits, unit, prompt, left, done,
                                                                                   run, row, drawn}, in pieces
     grow      draw `count` more characters                                    -> the same
     pause     stop reading or growing                                         -> the same, done
     put       go back to `length` symbols, then read `ids`                    -> the same
     rule      draw by another rule from now on
     expect    what is expected in the place of a symbol                       -> {ticket, row, drawn}
     paint     the values of a hidden unit from now on, and of all symbols     -> {unit}
   `bits` are thousandths, or one of the codes of textmap.js; `unit` are 127ths; `run` is the number that came with the command; `row` the log-probabilities of the next
   symbol, `drawn` those that are drawn from, which differ where `row` is undefined. */
const engine = (() => {
  const IMPOSSIBLE = -1, UNKNOWN = -2, CONTEXT = -3, UNDEFINED = -4;
  const EVERY = 64; // symbols between two states that are kept
  const PIECE = 25; // milliseconds between two answers
  const MOST = 50_000; // symbols of a text
  const tracks = [];
  let next = null; // wakes the loop

  function thousandths(row, id, symbols) {
    if (!row) return CONTEXT;
    if (id < 0 || id >= symbols) return UNKNOWN;
    if (Number.isNaN(row[id])) return UNDEFINED;
    return row[id] === -Infinity ? IMPOSSIBLE : Math.round((-1000 * row[id]) / Math.LN2);
  }

  class Track {
    constructor(number, description, array) {
      this.number = number;
      this.model = models.make(description, array);
      this.symbols = description.symbols;
      this.spells = description.spells; // whether some characters are spelled in bytes
      this.begins = array(description.begins); // 1 for each symbol that begins a character
      this.units = this.model.units().reduce((sum, layer) => sum + layer.length, 0);
      this.unit = -1;
      this.start([], -1);
    }

    start(ids, lead) {
      this.model.begin();
      this.ids = [];
      this.bits = [];
      this.values = new Int8Array(0);
      this.row = lead >= 0 ? this.model.read(lead).slice() : null;
      this.kept = [[this.model.save(), this.row]];
      this.waiting = ids; // still to be read
      this.left = 0; // characters still to be begun
      this.growing = false;
      this.prompt = ids.length;
      this.busy = true;
    }

    /* Reads one symbol. */
    add(id) {
      this.bits.push(thousandths(this.row, id, this.symbols));
      this.ids.push(id);
      this.row = this.model.read(id < this.symbols ? id : -1).slice();
      this.keepUnits();
      if (this.ids.length % EVERY === 0) this.kept.push([this.model.save(), this.row]);
    }

    keepUnits() {
      if (!this.units) return;
      const end = this.ids.length * this.units;
      if (this.values.length < end) {
        const wider = new Int8Array(Math.max(2 * end, 1 << 16));
        wider.set(this.values);
        this.values = wider;
      }
      let at = end - this.units;
      for (const layer of this.model.units()) for (const value of layer) this.values[at++] = Math.round(127 * Math.max(-1, Math.min(1, value)));
    }

    /* The state and the row after the first `length` symbols. */
    replay(length) {
      const place = Math.floor(length / EVERY);
      const [saved, before] = this.kept[place];
      this.model.restore(saved);
      let row = before;
      for (let at = place * EVERY; at < length; at += 1) {
        row = this.model.read(this.ids[at] < this.symbols ? this.ids[at] : -1).slice();
      }
      return row;
    }

    /* Goes back to the first `length` symbols. */
    cut(length) {
      if (length >= this.ids.length) return;
      this.row = this.replay(length);
      this.ids.length = length;
      this.bits.length = length;
      this.kept.length = Math.floor(length / EVERY) + 1;
      this.prompt = Math.min(this.prompt, length);
    }

    /* What is expected at a place, and what is drawn from there. */
    expect(place) {
      if (place >= this.ids.length) return this.rows(this.row);
      const now = this.model.save();
      const found = this.rows(this.replay(place));
      this.model.restore(now);
      return found;
    }

    rows(row) {
      return { row, drawn: row && this.model.rowToDraw(row) };
    }

    /* Draws the next symbol; the number of the draw is its place behind the beginning. A character that is spelled in
       bytes is drawn to its end. */
    grow() {
      const drawn = sampling.draw(this.model.rowToDraw(this.row), engine.rule, this.noise(this.ids.length - this.prompt));
      this.growing = !this.begins[drawn] || this.left > 0;
      if (!this.growing) return;
      this.left -= this.begins[drawn];
      this.add(drawn);
      this.growing = (this.left > 0 || this.spells) && this.ids.length < MOST;
    }

    /* Neither reads nor draws any more. */
    rest() {
      this.waiting = [];
      this.left = 0;
      this.growing = false;
      this.busy = false;
    }

    unitValues(from) {
      if (this.unit < 0) return null;
      const found = new Int8Array(this.ids.length - from);
      for (let at = 0; at < found.length; at += 1) found[at] = this.values[(from + at) * this.units + this.unit];
      return found;
    }

    /* Reads or draws for some milliseconds and tells the page. */
    work() {
      const from = this.ids.length;
      const end = performance.now() + PIECE;
      while ((this.waiting.length || this.growing) && performance.now() < end) {
        if (this.waiting.length) for (const id of this.waiting.splice(0, 16)) this.add(id);
        else this.grow();
      }
      this.busy = this.waiting.length > 0 || this.growing;
      this.tell(from);
    }

    tell(from) {
      postMessage({ track: this.number, from, ids: this.ids.slice(from), bits: this.bits.slice(from),
        unit: this.unitValues(from), prompt: this.prompt, left: this.left, done: !this.busy, run: this.run,
        ...this.rows(this.row) });
    }
  }

  const commands = {
    async open({ descriptions, blob }) {
      const array = await arrays(blob);
      descriptions.forEach((description, number) => tracks.push(new Track(number, description, array)));
      tracks.forEach((track) => { track.busy = false; });
      postMessage({ opened: true });
    },
    read({ ids, lead, seed, ...rest }) {
      const own = tracks[rest.track];
      if (own.seed !== seed) own.noise = sampling.noise(seed);
      own.seed = seed;
      own.start([...ids], lead);
      commands.grow(rest);
    },
    grow({ track, count, run }) {
      const own = tracks[track];
      own.run = run;
      own.left = count;
      own.growing = count > 0;
      own.busy = true;
    },
    pause({ track }) {
      const own = tracks[track];
      const { left } = own;
      own.rest();
      own.left = left;
      own.tell(own.ids.length);
    },
    put({ track, length, ids }) {
      const own = tracks[track];
      own.rest();
      own.cut(length);
      for (const id of ids) own.add(id);
      own.tell(Math.min(length, own.ids.length));
    },
    rule({ rule }) {
      engine.rule = rule;
    },
    expect({ track, place, ticket }) {
      postMessage({ track, ticket, ...tracks[track].expect(place) });
    },
    paint({ track, unit }) {
      tracks[track].unit = unit;
      postMessage({ track, unit: tracks[track].unitValues(0) });
    },
  };

  /* The function from a description {type, at, count} to the typed array at that place of the bytes. */
  async function arrays(blob) {
    const text = atob(blob);
    const deflated = new Uint8Array(text.length);
    for (let at = 0; at < deflated.length; at += 1) deflated[at] = text.charCodeAt(at);
    const stream = new Blob([deflated]).stream().pipeThrough(new DecompressionStream("deflate"));
    const bytes = await new Response(stream).arrayBuffer();
    const types = { i1: Int8Array, u1: Uint8Array, i2: Int16Array, u2: Uint16Array, u4: Uint32Array, f4: Float32Array,
      f8: Float64Array };
    return ({ type, at, count }) => new types[type](bytes, at, count);
  }

  /* Works on every busy track in turn; between two pieces the messages that came are heard. */
  const turn = new MessageChannel();
  turn.port1.onmessage = () => {
    next = null;
    for (const track of tracks) if (track.busy) track.work();
    wake();
  };

  function wake() {
    if (next || !tracks.some((track) => track.busy)) return;
    next = true;
    turn.port2.postMessage(0);
  }

  async function hear({ data }) {
    try {
      await commands[data.do](data);
      wake();
    } catch (error) {
      postMessage({ failed: String(error) });
    }
  }

  return { hear, tracks, rule: { temperature: 1, topK: 0, topP: 1 } };
})();
onmessage = engine.hear;
