"use strict";
/* A text whose characters are painted and can be chosen, by mouse, finger and keyboard.

   charlm.textMap(root, {symbols, ids, breaks, styleOf, describe, onChoose, part}) fills an element that the macro
   text_map made, and returns {paint, choose, chosen, clear, change}: after a change of `ids` from a position on, change(position)
   draws the text anew from there.

     symbols    what each id looks like: one character, or <C3> for a byte
     ids        the text, an id a position
     breaks     positions where another piece of the text begins (optional)
     styleOf    position -> class of its colour
     describe   position -> what a screen reader says of it
     onChoose   (position, panel) -> fills the panel
     part       how many symbols are shown at once (optional)

   A symbol is a code point: no emoji is ever cut in two.

   charlm.styles.bits, .difference and .unit give the classes of the three scales of colours, and
   charlm.nextTable({caption, rows}) is the table of the most probable next characters. */
charlm.CODES = { IMPOSSIBLE: -1, UNKNOWN: -2, CONTEXT: -3, UNDEFINED: -4 }; // in place of thousandths of bits

charlm.styles = (() => {
  const { IMPOSSIBLE, UNKNOWN, CONTEXT, UNDEFINED } = charlm.CODES;
  const levels = [1000, 2000, 3000, 4000, 6000, 8000, 11000];
  const differences = [500, 2000, 4000];
  const shares = [0.1, 0.25, 0.5, 0.8];
  const passed = (bounds, value) => bounds.filter((bound) => value >= bound).length;
  const infinite = (thousandths) => (thousandths === IMPOSSIBLE || thousandths === UNDEFINED ? Infinity : thousandths);

  function bits(thousandths) {
    if (thousandths === UNKNOWN) return "u";
    if (thousandths === CONTEXT) return "x";
    return thousandths < 0 ? "s7" : "s" + passed(levels, thousandths);
  }

  /* Blue where the first model knows more, orange where the second does. */
  function difference(first, second) {
    if (first === CONTEXT) return "x";
    if (first === UNKNOWN || second === UNKNOWN) return "u";
    const more = infinite(second) - infinite(first);
    const size = Math.abs(more);
    if (Number.isNaN(more)) return "s0";
    if (size < 250) return "s0";
    return (more > 0 ? "p" : "n") + (1 + passed(differences, size));
  }

  function unit(share) {
    const level = passed(shares, Math.abs(share));
    return level ? (share > 0 ? "p" : "n") + level : "s0";
  }

  return { bits, difference, unit };
})();

charlm.bitsText = (thousandths) => {
  const words = {
    [charlm.CODES.IMPOSSIBLE]: "impossible: probability 0",
    [charlm.CODES.UNKNOWN]: "the model does not know this character",
    [charlm.CODES.CONTEXT]: "context: the model begins to read here",
    [charlm.CODES.UNDEFINED]: "undefined: this history was never counted",
  };
  return thousandths < 0 ? words[thousandths] : (thousandths / 1000).toFixed(2) + " bits";
};

/* Rows are {symbol, probability, came, own, take}: `own` is a second probability, drawn as a line across the bar, and `take`
   a function that makes the symbol a button. */
charlm.nextTable = ({ caption, rows }) => {
  const { element } = charlm;
  const lines = rows.map(({ symbol, probability, came, own, take }) => {
    const bar = element("span", { class: "bar" });
    bar.style.width = 100 * probability + "%";
    const bars = element("span", { class: "bars" }, bar);
    if (Math.abs(own - probability) > 0.002) {
      const line = element("span", { class: "own" });
      line.style.left = 100 * own + "%";
      bars.append(line);
    }
    let name = charlm.symbolElement(symbol);
    if (take) {
      name = element("button", { type: "button", "aria-label": `Take ${charlm.nameOf(symbol)}` }, name);
      name.addEventListener("click", take);
    }
    return element("tr", came ? { class: "came" } : {},
      element("td", {}, name), element("td", { class: "number" }, charlm.percent(probability)),
      element("td", { class: "track" }, bars));
  });
  return element("table", {}, element("caption", {}, caption),
    element("thead", {}, element("tr", {}, element("th", { scope: "col" }, "next"),
      element("th", { scope: "col", class: "number" }, "probability"), element("th", { scope: "col" }, "share"))),
    element("tbody", {}, ...lines));
};

charlm.textMap = (root, options) => {
  const { symbols, ids, styleOf, describe, onChoose } = options;
  const breaks = new Set(options.breaks || []);
  const part = options.part || 6000;
  const text = root.querySelector("[data-text]");
  const panel = root.querySelector("[data-panel]");
  const pager = root.querySelector(".pager");
  const where = root.querySelector("[data-where]");
  let starts = partStarts();
  let current = 0;
  let chosen = -1;
  let spans = [];

  /* Where each part begins: at the last line end before it would be too long, where there is one. */
  function partStarts() {
    const found = [0];
    for (let at = part; at < ids.length; at = found[found.length - 1] + part) {
      let cut = at;
      while (cut > at - part / 2 && symbols[ids[cut - 1]] !== "\n") cut -= 1;
      found.push(symbols[ids[cut - 1]] === "\n" ? cut : at);
    }
    return found;
  }

  /* Of marks that pile up on one letter the third and all after it stand on a circle of their own. */
  function isPiled(position) {
    return [0, 1, 2].every((back) => position >= back && /^\p{M}$/u.test(symbols[ids[position - back]]));
  }

  function spanOf(position) {
    const { text: drawn, sign, plain } = charlm.shown(symbols[ids[position]]);
    const span = charlm.element("span", { role: "option", tabindex: "-1", "aria-selected": "false", "data-i": position });
    if (sign) span.append(charlm.element("span", { class: plain ? "sign plain" : "sign" }, drawn));
    else span.append(isPiled(position) ? "\u25cc" + drawn : drawn);
    name(span, position);
    return span;
  }

  /* A symbol that shows nothing has a name for screen readers. */
  function name(span, position) {
    const symbol = symbols[ids[position]];
    if (symbol.trim()) span.removeAttribute("aria-label");
    else span.setAttribute("aria-label", charlm.nameOf(symbol));
  }

  const endOf = (number) => (number + 1 < starts.length ? starts[number + 1] : ids.length);

  function show(number) {
    current = number;
    spans = [];
    text.replaceChildren();
    fill(starts[number]);
    if (!mark(chosen, true)) spans[0]?.setAttribute("tabindex", "0");
    told();
  }

  /* Draws the symbols of this part from a position on, behind those that are there. */
  function fill(from) {
    const begin = starts[current];
    let line = from > begin && symbols[ids[from - 1]] !== "\n" ? text.lastElementChild : null;
    for (let position = from; position < endOf(current); position += 1) {
      if (line === null || breaks.has(position)) {
        line = charlm.element("div", { class: breaks.has(position) && position > begin ? "line break" : "line", dir: "auto" });
        text.append(line);
      }
      const span = spanOf(position);
      span.className = styleOf(position);
      spans.push(span);
      line.append(span);
      if (symbols[ids[position]] === "\n") line = null;
    }
  }

  function told() {
    const whole = ids.length.toLocaleString("en");
    pager.hidden = starts.length < 2;
    where.textContent = `${(starts[current] + 1).toLocaleString("en")} to ${endOf(current).toLocaleString("en")} of ${whole}`;
    pager.querySelector('[data-step="-1"]').disabled = current === 0;
    pager.querySelector('[data-step="1"]').disabled = current === starts.length - 1;
  }

  function paint() {
    const begin = starts[current];
    spans.forEach((span, offset) => { span.className = styleOf(begin + offset); });
  }

  /* The text is another one from this position on; its end is shown, where that is what was shown before. */
  function change(position) {
    const wasLast = current === starts.length - 1;
    if (chosen >= position) clear();
    starts = partStarts();
    const last = starts.length - 1;
    if (!wasLast && current <= last) return told();
    if (current !== last || position < starts[last]) return show(last);
    for (const span of spans.splice(position - starts[last])) span.remove();
    while (text.lastElementChild && !text.lastElementChild.childElementCount) text.lastElementChild.remove();
    fill(position);
    if (chosen < 0) spans[0]?.setAttribute("tabindex", "0");
    return told();
  }

  /* No character is chosen any more. */
  function clear() {
    mark(chosen, false);
    chosen = -1;
    spans[0]?.setAttribute("tabindex", "0");
  }

  function partOf(position) {
    let number = starts.length - 1;
    while (starts[number] > position) number -= 1;
    return number;
  }

  function mark(position, on) {
    const span = position < 0 ? undefined : spans[position - starts[current]];
    if (!span) return null;
    span.setAttribute("aria-selected", String(on));
    span.setAttribute("tabindex", on ? "0" : "-1");
    if (on) span.setAttribute("aria-label", describe(position));
    else name(span, position);
    return span;
  }

  function choose(position, focus = true) {
    if (!ids.length) return;
    const wanted = Math.max(0, Math.min(ids.length - 1, position));
    if (partOf(wanted) !== current) show(partOf(wanted));
    spans[0]?.setAttribute("tabindex", "-1");
    if (chosen >= 0) mark(chosen, false);
    chosen = wanted;
    const span = mark(wanted, true);
    if (focus) span.focus();
    panel.replaceChildren();
    onChoose(wanted, panel);
  }

  /* The position drawn above or below, as near as can be. */
  function neighbour(position, direction) {
    const from = spans[position - starts[current]].getBoundingClientRect();
    let best = position;
    let row = null;
    for (let at = position + direction; at >= 0 && at < ids.length; at += direction) {
      const span = spans[at - starts[current]];
      if (!span) return at;
      const box = span.getBoundingClientRect();
      if (Math.abs(box.top - from.top) < from.height / 2) continue;
      if (row !== null && Math.abs(box.top - row) > from.height / 2) break;
      row = box.top;
      const distance = Math.abs(box.left - from.left);
      const before = spans[best - starts[current]].getBoundingClientRect();
      if (best === position || distance < Math.abs(before.left - from.left)) best = at;
    }
    return best;
  }

  function keys(event) {
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    const at = chosen >= 0 ? chosen : starts[current];
    const moves = {
      ArrowRight: () => at + 1,
      ArrowLeft: () => at - 1,
      ArrowDown: () => neighbour(at, 1),
      ArrowUp: () => neighbour(at, -1),
      Home: () => 0,
      End: () => ids.length - 1,
      PageDown: () => (current + 1 < starts.length ? starts[current + 1] : ids.length - 1),
      PageUp: () => starts[Math.max(0, current - 1)],
      Enter: () => at,
      " ": () => at,
    };
    if (!(event.key in moves)) return;
    event.preventDefault();
    choose(moves[event.key]());
  }

  text.addEventListener("click", (event) => {
    const span = event.target.closest("[data-i]");
    if (span) choose(Number(span.dataset.i));
  });
  text.addEventListener("keydown", keys);
  pager.addEventListener("click", (event) => {
    const step = Number(event.target.dataset.step || 0);
    if (step) show(Math.max(0, Math.min(starts.length - 1, current + step)));
  });
  show(0);
  return { paint, choose, chosen: () => chosen, clear, change };
};
