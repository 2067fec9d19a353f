"use strict";
/* The controls of a playground, and the way to its worker. `charlm.data.playground` is what charlm/pages/playground.py makes:

     models         for each track {name, title, symbols}
     descriptions   of the models, for models.js */
(() => {
  const { models, descriptions } = charlm.data.playground;
  const find = (id) => document.getElementById(id);
  const controls = Object.fromEntries(["beginning", "temperature", "top-k", "top-p", "length", "seed", "generate", "pause", "step",
    "score", "share", "shared", "status"].map((id) => [id, find(id)]));
  const asked = new Map(); // questions to the worker that wait for an answer
  const running = new Set(); // tracks that read or grow
  let tickets = 0;
  let runs = 0; // what the worker was last told to read or grow
  let opened = false; // whether the worker has its models
  let started = null; // the settings of the text that is there

  const source = find("worker").textContent;
  const worker = new Worker(URL.createObjectURL(new Blob([source], { type: "text/javascript" })));
  const send = (message) => worker.postMessage(message);

  const rule = () => ({ temperature: Number(controls.temperature.value), topK: Number(controls["top-k"].value), topP: Number(controls["top-p"].value) });
  const length = () => Math.min(20_000, Math.max(1, Math.floor(Number(controls.length.value)) || 1));
  const seed = () => (/^\d{1,19}$/.test(controls.seed.value) ? controls.seed.value : "0");

  function expect(track, place) {
    return new Promise((answer) => {
      tickets += 1;
      asked.set(tickets, answer);
      send({ do: "expect", track, place, ticket: tickets });
    });
  }

  function say(words) {
    controls.status.textContent = words;
  }

  function changed(number, place, symbol) {
    say(`${models[number].name}: ${charlm.nameOf(symbol)} taken as character ${place + 1}. Go on continues from there.`);
  }

  const tracks = models.map((model, number) => charlm.track({ number, model, description: descriptions[number],
    root: find(`track-${number}`), map: find(`map-${number}`), send, expect, rule, changed }));

  function busy(number, isBusy) {
    if (isBusy) running.add(number);
    else running.delete(number);
    controls.pause.textContent = running.size ? "Pause" : "Go on";
  }

  /* Every model reads the beginning; then each draws so many characters, or none. */
  function begin(count, words) {
    if (!opened) return;
    const text = controls.beginning.value;
    started = { seed: seed(), text, scored: !count };
    runs += 1;
    send({ do: "rule", rule: rule() });
    tracks.forEach((track, number) => {
      const ids = track.encode(text);
      track.begin();
      busy(number, true);
      send({ do: "read", track: number, ids, lead: ids.length ? -1 : track.lead, count, seed: started.seed, run: runs });
    });
    say(words);
  }

  function goOn(count) {
    if (!started) return begin(count || length(), "Generating.");
    started.scored = false;
    runs += 1;
    send({ do: "rule", rule: rule() });
    tracks.forEach((track, number) => {
      busy(number, true);
      send({ do: "grow", track: number, count: count || track.facts().left || length(), run: runs });
    });
    return say(count ? "One character more." : "Generating.");
  }

  function pause() {
    for (const number of running) send({ do: "pause", track: number });
  }

  function ended() {
    const strangers = new Set(tracks.flatMap((track) => track.unknown()));
    const shown = [...strangers].slice(0, 10).map((character) => charlm.shown(character).text).join(" ");
    const notes = strangers.size ? ` The beginning has characters that a model does not know: ${shown}` : "";
    say(tracks.map((track, number) => {
      const { length: symbols, prompt } = track.facts();
      const what = started?.scored ? `${symbols.toLocaleString("en")} read` : `${(symbols - prompt).toLocaleString("en")} generated`;
      return `${models[number].name}: ${what}`;
    }).join(". ") + "." + notes);
  }

  /* The text of each track with all that is needed to make it again. */
  function shareText() {
    const { temperature, topK, topP } = rule();
    const settings = `seed ${started.seed}, temperature ${temperature}, top-k ${topK || "off"}, top-p ${topP}`;
    return tracks.map((track, number) => {
      const { hand } = track.facts();
      const chosen = hand ? `, ${hand} chosen by hand` : "";
      return `${models[number].name} (${models[number].title}): ${settings}${chosen}\nBeginning: ${JSON.stringify(started.text)}\n\n${track.text()}\n`;
    }).join("\n---\n\n");
  }

  async function share() {
    if (!started) return;
    controls.shared.value = shareText();
    controls.shared.parentElement.hidden = false;
    try {
      await navigator.clipboard.writeText(controls.shared.value);
      say("Copied, with the seed.");
    } catch {
      controls.shared.focus();
      controls.shared.select();
      say("The text to copy stands below the buttons.");
    }
  }

  function slid() {
    const { temperature, topK, topP } = rule();
    find("temperature-value").textContent = temperature.toFixed(2);
    find("top-k-value").textContent = topK || "all";
    find("top-p-value").textContent = topP.toFixed(2);
    controls["top-k"].setAttribute("aria-valuetext", topK ? String(topK) : "all");
    send({ do: "rule", rule: rule() });
    for (const track of tracks) track.show();
  }

  worker.onmessage = ({ data }) => {
    if (data.failed) say(`This page has failed: ${data.failed}`);
    else if (data.opened) {
      ({ opened } = data);
      begin(length(), "Generating.");
    } else if (data.ticket) {
      asked.get(data.ticket)(data);
      asked.delete(data.ticket);
    } else {
      tracks[data.track].took(data);
      if (data.done && data.run === runs) {
        const were = running.size;
        busy(data.track, false);
        if (were && !running.size) ended();
      }
    }
  };
  worker.onerror = () => say("This browser does not let a page from the disk start a worker: open it in another one.");

  controls.generate.addEventListener("click", () => begin(length(), "Generating."));
  controls.score.addEventListener("click", () => begin(0, "Reading."));
  controls.pause.addEventListener("click", () => (running.size ? pause() : goOn(0)));
  controls.step.addEventListener("click", () => goOn(1));
  controls.share.addEventListener("click", share);
  controls.beginning.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) begin(length(), "Generating.");
  });
  for (const id of ["temperature", "top-k", "top-p"]) controls[id].addEventListener("input", slid);

  slid();
  send({ do: "open", descriptions, blob: find("numbers").textContent });
  charlm.playground = { tracks, expect, running };
})();
