"use strict";
/* One model of a playground with its text: the map of the text, the panel of the next character, the paint.

   charlm.track({number, model, description, root, map, send, expect, rule, changed}) returns what playground.js calls:
     encode(text)      the ids of a text; a character that the model lacks gets a number past its vocabulary
     text()            the characters of the text so far
     took(message)     what the worker said of this track
     show()            draws the panel anew
   `send` sends a command to the worker, `expect` asks it for {row, drawn} at a place, `rule` gives the sliders' values,
   `changed` is called when somebody takes another way. */
charlm.track = ({ number, model, description, root, map, send, expect, rule, changed }) => {
  const { element } = charlm;
  const MOST = 10; // characters in the panel
  const symbols = [...model.symbols];
  const known = new Map(symbols.slice(0, description.characters).map((symbol, id) => [symbol, id]));
  const unknown = new Map();
  const ids = [];
  const bits = [];
  const select = root.querySelector("[data-units]");
  const panel = root.querySelector("[data-panel]");
  const field = root.querySelector("[data-text]"); // scrolls within itself
  let unit = -1;
  let values = []; // 127ths of the painted unit's output
  let end = { row: null, drawn: null };
  let prompt = 0;
  let hand = 0; // characters that somebody chose
  let left = 0;
  let wanted = 0; // the newest question to the worker

  function encode(text) {
    const found = [];
    for (const character of text) {
      if (known.has(character)) found.push(known.get(character));
      else if (description.spells) for (const byte of new TextEncoder().encode(character)) found.push(description.characters + byte);
      else found.push(strange(character));
    }
    return found;
  }

  function strange(character) {
    if (!unknown.has(character)) {
      unknown.set(character, symbols.length);
      symbols.push(character);
    }
    return unknown.get(character);
  }

  function text() {
    const bytes = ids.flatMap((id) => id >= description.characters && id < description.symbols
      ? [id - description.characters] : [...new TextEncoder().encode(symbols[id])]);
    return new TextDecoder().decode(Uint8Array.from(bytes));
  }

  const styleOf = (position) => (unit < 0 ? charlm.styles.bits(bits[position]) : charlm.styles.unit((values[position] || 0) / 127));

  function describe(position) {
    const words = `${charlm.nameOf(symbols[ids[position]])}, ${charlm.bitsText(bits[position])}`;
    return unit < 0 ? words : `${words}, unit ${((values[position] || 0) / 127).toFixed(2)}`;
  }

  const textMap = charlm.textMap(map, { symbols, ids, styleOf, describe, onChoose: show, part: 2000 });

  /* The rows of the panel: the most probable characters, and the one that came. */
  function rows({ drawn }, came, take) {
    const p = sampling.distribution(drawn, rule());
    const order = [...drawn.keys()].sort((a, b) => drawn[b] - drawn[a] || a - b).slice(0, MOST);
    if (came >= 0 && came < drawn.length && !order.includes(came)) order.push(came);
    return order.map((id) => ({ symbol: symbols[id], probability: p[id], own: Math.exp(drawn[id]), came: id === came, take: () => take(id) }));
  }

  function table(expected, came, take) {
    if (!expected.drawn) return [element("p", { class: "hint" }, "The model begins to read here.")];
    const parts = [charlm.nextTable({ caption: "As drawn with the sliders; lines show where the model itself says otherwise.", rows: rows(expected, came, take) })];
    if (Number.isNaN(expected.row[0])) {
      parts.unshift(element("p", { class: "hint" }, "This history was never counted: the longest part of it that was has the word."));
    }
    return parts;
  }

  /* The panel of the chosen character, else of the next one. The focus stays on the same line. */
  async function show() {
    const place = textMap.chosen();
    const question = (wanted += 1);
    const expected = place < 0 ? end : await expect(number, place);
    if (question !== wanted) return;
    const buttons = [...panel.querySelectorAll("td button")];
    panel.setAttribute("aria-live", place < 0 ? "off" : "polite"); // a text that grows is not read aloud
    const focused = buttons.indexOf(document.activeElement);
    if (place < 0) {
      panel.replaceChildren(element("h3", {}, "The next character"), ...table(expected, -1, (id) => put(ids.length, id)));
    } else {
      const symbol = symbols[ids[place]];
      const back = element("button", { type: "button" }, "Back to the end");
      back.addEventListener("click", () => {
        textMap.clear();
        field.scrollTop = field.scrollHeight;
        show();
      });
      panel.replaceChildren(element("h3", {}, "Instead of ", charlm.symbolElement(symbol)),
        element("p", { class: "hint" }, `${charlm.nameOf(symbol)}, character ${(place + 1).toLocaleString("en")}: ${charlm.bitsText(bits[place])}`),
        ...table(expected, ids[place], (id) => put(place, id)), back);
    }
    if (focused >= 0) panel.querySelectorAll("td button")[focused]?.focus();
  }

  /* Takes another way: this symbol at this place, and nothing after it. */
  function put(place, id) {
    hand += 1;
    textMap.clear();
    send({ do: "put", track: number, length: place, ids: [id] });
    changed(number, place, symbols[id]);
  }

  /* A text that grows is followed to its end, unless somebody looks at an earlier place or has chosen a character. */
  function follow(before, wasAtEnd) {
    const grows = ids.length > prompt;
    if (grows && textMap.chosen() < 0 && (wasAtEnd || before <= prompt)) field.scrollTop = field.scrollHeight;
    else if (!before) field.scrollTop = 0;
  }

  function took(message) {
    if (message.ids) {
      const before = message.from && ids.length;
      const wasAtEnd = field.scrollTop + field.clientHeight > field.scrollHeight - 30;
      ids.splice(message.from, ids.length, ...message.ids);
      bits.splice(message.from, bits.length, ...message.bits);
      if (message.unit) values.splice(message.from, values.length, ...message.unit);
      if (message.from === 0) prompt = message.prompt;
      ({ left } = message);
      end = { row: message.row, drawn: message.drawn };
      textMap.change(message.from);
      follow(before, wasAtEnd);
      root.querySelector("[data-summary]").textContent = summary();
      if (textMap.chosen() < 0) show();
    } else if (message.unit) {
      values = [...message.unit];
      textMap.paint();
    }
  }

  function summary() {
    const counted = bits.filter((value) => value !== charlm.CODES.CONTEXT && value !== charlm.CODES.UNKNOWN);
    const strangers = bits.filter((value) => value === charlm.CODES.UNKNOWN).length;
    const mean = counted.reduce((sum, value) => sum + (value < 0 ? Infinity : value), 0) / 1000 / counted.length;
    const words = [`${ids.length.toLocaleString("en")} symbols`];
    if (counted.length) words.push(mean < Infinity ? `${mean.toFixed(3)} bits each` : "at least one of them impossible to this model");
    if (strangers) words.push(`${strangers.toLocaleString("en")} unknown to this model`);
    return words.join(", ");
  }

  /* Paints by a hidden unit, or with -1 by surprise. */
  function paintBy(wantedUnit) {
    unit = wantedUnit;
    for (const button of root.querySelectorAll("[data-paint]")) {
      button.setAttribute("aria-pressed", String((button.dataset.paint === "unit") === unit >= 0));
    }
    for (const legend of root.querySelectorAll("[data-legend]")) legend.hidden = (legend.dataset.legend === "unit") !== unit >= 0;
    if (unit < 0) textMap.paint();
    send({ do: "paint", track: number, unit });
  }

  function unitNames() {
    const networks = description.kind === "mixture" ? description.models : [description];
    const layers = networks.flatMap((part) => (part.kind === "network" ? part.cells.map(() => part.width) : []));
    return layers.flatMap((width, layer) => Array.from({ length: width }, (_, place) => `${layer}:${place}:h`));
  }

  if (select) {
    select.append(...unitNames().map((name, place) => element("option", { value: place }, name)));
    const look = (step) => {
      select.value = String((Number(select.value) + step + select.options.length) % select.options.length);
      paintBy(Number(select.value));
    };
    select.addEventListener("change", () => look(0));
    root.querySelector("[data-paint=bits]").addEventListener("click", () => paintBy(-1));
    root.querySelector("[data-paint=unit]").addEventListener("click", () => look(0));
    for (const button of root.querySelectorAll("[data-unit-step]")) {
      button.addEventListener("click", () => look(Number(button.dataset.unitStep)));
    }
  }

  return {
    encode, text, took, show,
    unknown: () => [...unknown.keys()].filter((character) => ids.includes(unknown.get(character))),
    begin: () => { hand = 0; textMap.clear(); },
    facts: () => ({ length: ids.length, prompt, hand, left }),
    lead: description.start,
    ids, bits,
  };
};
