"use strict";
/* The surprise map: characters painted by their bits, and what was expected in the place of the chosen one.

   charlm.surpriseMap(root, data), where data is what pages/text_pages.py makes:

     symbols, ids, breaks   see textmap.js
     models                 the names of one or two models
     bits                   for each model a list of thousandths of bits; the codes of textmap.js where there are none
     top                    null, or {steps, ids, parts}: for each of the first `steps` positions the ids of the most
                            probable characters and their probabilities in millionths, `ids.length / steps` of them;
                            those of the first model */
(() => {
  const { CONTEXT } = charlm.CODES;

  function probabilityText(thousandths) {
    return thousandths < 0 ? "" : "probability " + charlm.percent(2 ** (-thousandths / 1000));
  }

  function topTable(data, position) {
    const { steps, ids, parts } = data.top;
    const k = ids.length / steps;
    const rows = [];
    for (let at = position * k; at < (position + 1) * k && parts[at] >= 0; at += 1) {
      rows.push({ symbol: data.symbols[ids[at]], probability: parts[at] / 1e6, came: ids[at] === data.ids[position] });
    }
    if (!rows.length) return charlm.element("p", { class: "hint" }, "Nothing is expected here: this history was never counted.");
    return charlm.nextTable({ caption: `Most probable here (${data.models[0]})`, rows });
  }

  function fillPanel(data, position, panel) {
    const { element } = charlm;
    const symbol = data.symbols[data.ids[position]];
    const title = element("p", { class: "big" }, charlm.symbolElement(symbol));
    panel.append(title, element("p", { class: "hint" }, `${charlm.nameOf(symbol)}, character ${(position + 1).toLocaleString("en")}`));
    data.models.forEach((name, number) => {
      const thousandths = data.bits[number][position];
      const line = element("p", {}, ...(data.models.length > 1 ? [element("bdi", {}, name), ": "] : []),
        element("strong", {}, charlm.bitsText(thousandths)));
      if (thousandths >= 0) line.append(", ", probabilityText(thousandths));
      panel.append(line);
    });
    if (data.bits[0][position] === CONTEXT) return;
    if (data.top && position < data.top.steps) panel.append(topTable(data, position));
    else if (data.top) panel.append(element("p", { class: "hint" },
      `What else was expected is kept for the first ${data.top.steps.toLocaleString("en")} characters.`));
  }

  charlm.surpriseMap = (root, data) => {
    let view = data.models.length > 1 ? "difference" : 0;
    const styleOf = (position) => view === "difference"
      ? charlm.styles.difference(data.bits[0][position], data.bits[1][position])
      : charlm.styles.bits(data.bits[view][position]);
    const describe = (position) => [charlm.nameOf(data.symbols[data.ids[position]]),
      ...data.models.map((name, number) => charlm.bitsText(data.bits[number][position]))].join(", ");
    const onChoose = (position, panel) => fillPanel(data, position, panel);
    const map = charlm.textMap(root, { symbols: data.symbols, ids: data.ids, breaks: data.breaks, styleOf, describe, onChoose });
    const buttons = [...document.querySelectorAll(`[data-view-of="${root.id}"]`)];
    const legends = [...document.querySelectorAll(`[data-legend-of="${root.id}"]`)];
    function look(wanted) {
      view = wanted === "difference" ? wanted : Number(wanted);
      for (const button of buttons) button.setAttribute("aria-pressed", String(button.dataset.view === wanted));
      for (const legend of legends) legend.hidden = (legend.dataset.legend === "difference") !== (view === "difference");
      map.paint();
    }
    for (const button of buttons) button.addEventListener("click", () => look(button.dataset.view));
    look(String(view));
    for (const button of document.querySelectorAll(`[data-go-in="${root.id}"]`)) {
      button.addEventListener("click", () => map.choose(Number(button.dataset.go)));
    }
    for (const cell of document.querySelectorAll(`[data-go-head="${root.id}"]`)) cell.hidden = false;
    return map;
  };

  const root = document.getElementById("surprise");
  if (root && charlm.data.surprise) charlm.surpriseMap(root, charlm.data.surprise);
})();
