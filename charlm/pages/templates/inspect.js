"use strict";
/* A text painted by hidden units. `charlm.data.inspect` is what pages/text_pages.py makes:

     symbols, ids   see textmap.js
     units          names of the units, LAYER:NUMBER:h or c
     largest        for each the largest absolute value it takes
     values         base64 of int8 [units, positions]: 127ths of that value
     follows        what found units follow, in words, by their names
     top, parts     for each position the ids of the most probable next characters, and their probabilities in
                    millionths */
(() => {
  const { element } = charlm;
  const data = charlm.data.inspect;
  const root = document.getElementById("units");
  const steps = data.ids.length;
  const most = steps ? data.top.length / steps : 0;
  const values = Int8Array.from(atob(data.values), (character) => character.charCodeAt(0));
  const painted = document.getElementById("painted");
  const other = document.getElementById("other");
  const buttons = [...document.querySelectorAll("[data-unit]")];
  let unit = 0;

  const numberAt = (position) => values[unit * steps + position];
  const valueAt = (position) => (numberAt(position) / 127) * data.largest[unit];

  const styleOf = (position) => charlm.styles.unit(numberAt(position) / 127);

  function signed(value) {
    return (value < 0 ? "\u2212" : "") + Math.abs(value).toFixed(2);
  }

  function describe(position) {
    return `${charlm.nameOf(data.symbols[data.ids[position]])}, unit ${data.units[unit]} is ${signed(valueAt(position))}`;
  }

  function nextTable(position) {
    const rows = [];
    for (let at = position * most; at < (position + 1) * most; at += 1) {
      const came = position + 1 < steps && data.top[at] === data.ids[position + 1];
      rows.push({ symbol: data.symbols[data.top[at]], probability: data.parts[at] / 1e6, came });
    }
    return charlm.nextTable({ caption: "Expected after it; bold is what came", rows });
  }

  function onChoose(position, panel) {
    const symbol = data.symbols[data.ids[position]];
    panel.append(
      element("p", { class: "big" }, charlm.symbolElement(symbol)),
      element("p", { class: "hint" }, `${charlm.nameOf(symbol)}, character ${(position + 1).toLocaleString("en")}`),
      element("p", {}, `unit ${data.units[unit]} is `, element("strong", {}, signed(valueAt(position))), " after it"));
    if (most) panel.append(nextTable(position));
  }

  const map = charlm.textMap(root, { symbols: data.symbols, ids: data.ids, styleOf, describe, onChoose });

  function look(number) {
    unit = (number + data.units.length) % data.units.length;
    const name = data.units[unit];
    const words = data.follows[name];
    painted.textContent = `Unit ${name}` + (words ? `: ${words}` : "") + `; largest value ${data.largest[unit].toFixed(2)}`;
    for (const button of buttons) button.setAttribute("aria-pressed", String(button.dataset.unit === name));
    other.value = [...other.options].some((option) => option.value === name) ? name : "";
    map.paint();
    if (map.chosen() >= 0) {
      const panel = root.querySelector("[data-panel]");
      panel.replaceChildren();
      onChoose(map.chosen(), panel);
    }
  }

  for (const button of buttons) {
    button.addEventListener("click", () => look(data.units.indexOf(button.dataset.unit)));
  }
  other.addEventListener("change", () => { if (other.value) look(data.units.indexOf(other.value)); });
  document.getElementById("before").addEventListener("click", () => look(unit - 1));
  document.getElementById("after").addEventListener("click", () => look(unit + 1));
  look(0);
})();
