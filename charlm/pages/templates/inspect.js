"use strict";
/* A text painted by hidden units. `charlm.data.inspect` is what report/inspect_page.py makes:

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
  const bounds = [0.1, 0.25, 0.5, 0.8];
  let unit = 0;

  const numberAt = (position) => values[unit * steps + position];
  const valueAt = (position) => (numberAt(position) / 127) * data.largest[unit];

  function styleOf(position) {
    const number = numberAt(position);
    const level = bounds.filter((bound) => Math.abs(number) / 127 >= bound).length;
    return level ? (number > 0 ? "p" : "n") + level : "s0";
  }

  function signed(value) {
    return (value < 0 ? "\u2212" : "") + Math.abs(value).toFixed(2);
  }

  function describe(position) {
    return `${charlm.nameOf(data.symbols[data.ids[position]])}, unit ${data.units[unit]} is ${signed(valueAt(position))}`;
  }

  function nextTable(position) {
    const rows = [];
    for (let at = position * most; at < (position + 1) * most; at += 1) {
      const bar = element("span", { class: "bar" });
      bar.style.width = data.parts[at] / 10000 + "%";
      const came = position + 1 < steps && data.top[at] === data.ids[position + 1];
      rows.push(element("tr", came ? { class: "came" } : {},
        element("td", {}, charlm.symbolElement(data.symbols[data.top[at]])),
        element("td", { class: "number" }, charlm.percent(data.parts[at] / 1e6)),
        element("td", { class: "track" }, bar)));
    }
    return element("table", {},
      element("caption", {}, "Expected after it; bold is what came"),
      element("thead", {}, element("tr", {}, element("th", { scope: "col" }, "next"),
        element("th", { scope: "col", class: "number" }, "probability"), element("th", { scope: "col" }, "share"))),
      element("tbody", {}, ...rows));
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
