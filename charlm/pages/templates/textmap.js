"use strict";
/* A text whose characters are painted and can be chosen, by mouse, finger and keyboard.

   charlm.textMap(root, {symbols, ids, breaks, styleOf, describe, onChoose, part}) fills an element that the macro
   text_map made, and returns {paint, choose, chosen}.

     symbols    what each id looks like: one character, or <C3> for a byte
     ids        the text, an id a position
     breaks     positions where another piece of the text begins (optional)
     styleOf    position -> class of its colour
     describe   position -> what a screen reader says of it
     onChoose   (position, panel) -> fills the panel
     part       how many symbols are shown at once (optional)

   A symbol is a code point: no emoji is ever cut in two. */
charlm.textMap = (root, options) => {
  const { symbols, ids, styleOf, describe, onChoose } = options;
  const breaks = new Set(options.breaks || []);
  const part = options.part || 6000;
  const text = root.querySelector("[data-text]");
  const panel = root.querySelector("[data-panel]");
  const pager = root.querySelector(".pager");
  const where = root.querySelector("[data-where]");
  const starts = partStarts();
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

  function spanOf(position) {
    const { text: drawn, sign, plain } = charlm.shown(symbols[ids[position]]);
    const span = charlm.element("span", { role: "option", tabindex: "-1", "aria-selected": "false", "data-i": position });
    span.append(sign ? charlm.element("span", { class: plain ? "sign plain" : "sign" }, drawn) : drawn);
    return span;
  }

  function show(number) {
    current = number;
    const begin = starts[number];
    const end = number + 1 < starts.length ? starts[number + 1] : ids.length;
    const lines = [];
    let line = null;
    spans = [];
    for (let position = begin; position < end; position += 1) {
      if (line === null || breaks.has(position)) {
        line = charlm.element("div", { class: breaks.has(position) && position > begin ? "line break" : "line", dir: "auto" });
        lines.push(line);
      }
      const span = spanOf(position);
      spans.push(span);
      line.append(span);
      if (symbols[ids[position]] === "\n") line = null;
    }
    text.replaceChildren(...lines);
    paint();
    if (!mark(chosen, true)) spans[0]?.setAttribute("tabindex", "0");
    pager.hidden = starts.length < 2;
    const whole = ids.length.toLocaleString("en");
    where.textContent = `${(begin + 1).toLocaleString("en")} to ${end.toLocaleString("en")} of ${whole}`;
    pager.querySelector('[data-step="-1"]').disabled = number === 0;
    pager.querySelector('[data-step="1"]').disabled = number === starts.length - 1;
  }

  function paint() {
    const begin = starts[current];
    spans.forEach((span, offset) => { span.className = styleOf(begin + offset); });
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
    else span.removeAttribute("aria-label");
    return span;
  }

  function choose(position, focus = true) {
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
  return { paint, choose, chosen: () => chosen };
};
