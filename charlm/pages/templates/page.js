"use strict";
/* What every page shares: its data, elements, visible characters, and the colours. */
const charlm = (() => {
  const data = JSON.parse(document.getElementById("data").textContent);

  /* An element with attributes and children; a child that is a string is text, never markup. */
  function element(name, attributes = {}, ...children) {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.append(...children);
    return made;
  }

  const named = {
    "\n": "line feed", "\r": "carriage return", "\t": "tab", " ": "space", "\u00a0": "no-break space",
    "\u200b": "zero width space", "\u200c": "zero width non-joiner", "\u200d": "zero width joiner",
    "\u200e": "left-to-right mark", "\u200f": "right-to-left mark", "\u202d": "left-to-right override",
    "\u202e": "right-to-left override", "\ufeff": "byte order mark", "\u00ad": "soft hyphen",
  };
  const pictures = { "\n": "⏎", "\t": "⇥" };
  const controls = ("NUL SOH STX ETX EOT ENQ ACK BEL BS TAB LF VT FF CR SO SI DLE DC1 DC2 DC3 DC4 NAK SYN ETB CAN EM SUB " +
    "ESC FS GS RS US").split(" ");
  const unseen = /^[\p{Cc}\p{Cf}\p{Cn}\p{Co}\p{Cs}\p{Zl}\p{Zp}]$/u;

  function code(symbol) {
    return "U+" + symbol.codePointAt(0).toString(16).toUpperCase().padStart(4, "0");
  }

  function isOneCharacter(symbol) {
    return symbol.length === String.fromCodePoint(symbol.codePointAt(0)).length;
  }

  /* How a symbol is drawn: its text, and whether that stands for something that cannot be seen. */
  function shown(symbol) {
    if (!isOneCharacter(symbol)) return { text: symbol, sign: true };
    if (symbol in pictures) return { text: pictures[symbol], sign: true, plain: true };
    if (symbol < " ") return { text: controls[symbol.codePointAt(0)], sign: true };
    if (unseen.test(symbol)) return { text: code(symbol), sign: true };
    return { text: symbol, sign: false };
  }

  /* How a symbol is called. */
  function nameOf(symbol) {
    if (!isOneCharacter(symbol)) return "byte " + symbol.slice(1, -1);
    if (symbol in named) return named[symbol];
    if (unseen.test(symbol)) return "control character " + code(symbol);
    return symbol.trim() ? symbol : "white space " + code(symbol);
  }

  /* A symbol as an element that cannot disturb what stands around it. */
  function symbolElement(symbol) {
    const { text, sign } = shown(symbol);
    if (symbol === " ") return element("span", { class: "sign" }, "space");
    return element("bdi", sign ? { class: "sign" } : {}, text);
  }

  function percent(probability) {
    if (probability === 0) return "0\u00a0%";
    if (probability < 0.0001) return "<\u00a00.01\u00a0%";
    return (100 * probability).toFixed(probability < 0.1 ? 2 : 1) + "\u00a0%";
  }

  function themeButton() {
    const button = document.getElementById("theme");
    const root = document.documentElement;
    const isDark = () => root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    const name = () => { button.textContent = isDark() ? "Light colours" : "Dark colours"; };
    button.addEventListener("click", () => { root.dataset.theme = isDark() ? "light" : "dark"; name(); });
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", name);
    button.hidden = false;
    name();
  }

  themeButton();
  return { data, element, shown, code, nameOf, symbolElement, percent };
})();
