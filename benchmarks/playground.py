"""How fast a page of `charlm export` is: until its first character, characters a second, long tasks of the page itself.

    python -m benchmarks.playground [--cell gru] [--layers 3] [--hidden 192] [--look-back 0] [--length 5000]

Needs chromium and its chromedriver. The network has random weights; its speed is that of a trained one.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

import torch

import charlm
from charlm.recurrent.model import CharRNN, RNNConfig

ROOT = Path(__file__).parents[1]
WATCH = """
window.longest = 0;
new PerformanceObserver((list) => {
  for (const entry of list.getEntries()) window.longest = Math.max(window.longest, entry.duration);
}).observe({ type: "longtask", buffered: true });
new MutationObserver(() => {
  if (!window.first && document.querySelector("[data-text] [data-i]")) window.first = performance.now();
}).observe(document, { childList: true, subtree: true });
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cell", default="gru")
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--hidden", type=int, default=192)
    parser.add_argument("--look-back", type=int, default=0)
    parser.add_argument("--length", type=int, default=5000)
    options = parser.parse_args()
    sys.path.insert(0, str(ROOT / "tests"))
    from browser import chromium

    text = charlm.read_text(ROOT / "data" / "shakespeare.txt")
    shape = RNNConfig(model=options.cell, layers=options.layers, hidden=options.hidden, look_back=options.look_back)
    model = CharRNN(text.vocab, shape)
    with tempfile.TemporaryDirectory() as folder, chromium() as browser:
        page = charlm.export(model, html=Path(folder) / "page.html", text=text).html
        assert page is not None
        browser.driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": WATCH})
        found = []
        for _ in range(5):
            browser.open(page)
            browser.wait("return charlm.playground.running.size === 0 && window.first > 0")
            first = browser.run("return window.first")
            browser.run("document.getElementById('length').value = arguments[0]", options.length)
            begin = time.perf_counter()
            browser.run("document.getElementById('generate').click()")
            browser.wait("return charlm.playground.running.size === 0", seconds=120)
            seconds = time.perf_counter() - begin
            longest = browser.run("return window.longest")
            found.append(
                {"first_ms": first, "characters_per_second": options.length / seconds, "longest_task_ms": longest}
            )
        megabytes = page.stat().st_size / 1e6
    best = max(found, key=lambda row: row["characters_per_second"])
    print(json.dumps({"model": model.title, "page_mb": round(megabytes, 2), "runs": found}, indent=1))
    print(f"best of {len(found)}: {best['characters_per_second']:,.0f} characters a second, torch {torch.__version__}")


if __name__ == "__main__":
    main()
