"""Three lists, each line an item by itself: names to invent, domains to tell apart, log lines to look through.

    python -m examples.items

All lists are made by chance: 20,000 names by `names.py`, 10,000 domains by `domains.py`, the lines of a server by
`logs.py`. On each stand an n-gram model (Kneser-Ney) and a GRU, both with `--items line`.

- Names: nats a character on names that neither has seen, and how many of 1,000 drawn names are unique and new.
- Domains: is it one that an algorithm made? The difference of the bits under a model of ordinary domains and one of
  generated ones, as the area under the ROC curve, beside scikit-learn's logistic regression on character n-grams of one
  to five characters: the same 8,000 domains to learn from and the same 2,000 others. A fourth row has seen ordinary
  domains alone, as where no generated one is known yet.
- Log lines: the area under the ROC curve of the bits of a line under a model of ordinary lines, where one of ten
  lines is strange.

What came out:

    names, order-5 Kneser-Ney                              1.8243 nats a character; 99.6% unique, 85.9% of these new
    names, GRU of 128 units                                1.6799 nats a character; 100.0% unique, 92.6% of these new
    domains, two n-grams of order 4                        area 0.9905
    domains, two GRUs of 128 units                         area 0.9911
    domains, logistic regression on n-grams                area 0.9908
    domains, GRU of ordinary ones alone, bits a character  area 0.9510
    log lines, order-8 Kneser-Ney                          area 0.9909 by bits a character, 0.9937 by bits of the line
    log lines, GRU of 96 units                             area 0.9906 by bits a character, 0.9914 by bits of the line
"""

from __future__ import annotations

import random

import numpy as np
from numpy.typing import NDArray

import charlm
from charlm.sequences.metrics import area_under_curve
from examples import domains, logs, names
from examples.tools import script

Rows = list[tuple[str, str]]
"""What was measured, and what came out."""


def network(text: charlm.Text, *, steps: int, hidden: int) -> charlm.TextModel:
    """A GRU of a list."""
    shape = {"model": "gru", "layers": 1, "hidden": hidden, "seq_length": 32, "batch_size": 64}
    return charlm.train(text, **shape, max_steps=steps, lr=6e-3, progress=False)


def drawn(model: charlm.TextModel, items: set[str], count: int) -> str:
    """How many of so many drawn items are different ones, and how many of these are not in the list."""
    found = set(model.sample_items(count, seed=1, progress=False).items)
    return f"{len(found) / count:.1%} unique, {len(found - items) / len(found):.1%} of these new"


def name_rows(count: int, steps: int, hidden: int) -> Rows:
    """An n-gram model and a network of names."""
    items = list(dict.fromkeys(name for name, _ in names.table(count)))
    text, rows = charlm.Text.of(items), []
    for title, model in {
        "order-5 Kneser-Ney": charlm.ngram(text, order=5, smoothing="kneser-ney"),
        f"GRU of {hidden} units": network(text, steps=steps, hidden=hidden),
    }.items():
        nats = model.evaluate(text.test).nats
        rows.append((f"names, {title}", f"{nats:.4f} nats a character; {drawn(model, set(items), min(count, 1000))}"))
    return rows


def bits(model: charlm.TextModel, items: list[str]) -> NDArray[np.float64]:
    """Of each item, 20 for each character that the model does not know."""
    scores = model.score_items(items, progress=False)
    return np.where(scores.unknown_N > 0, 20.0 * scores.length_N, -scores.logp_N / np.log(2))


def logistic(train: domains.Labelled, items: list[str]) -> NDArray[np.float64]:
    """What scikit-learn's logistic regression on character n-grams says of each item, after it has seen others."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    ways = make_pipeline(
        TfidfVectorizer(analyzer="char", ngram_range=(1, 5), sublinear_tf=True), LogisticRegression(C=10, max_iter=500)
    )
    ways.fit([domain for domain, _ in train], [odd for _, odd in train])
    return np.asarray(ways.decision_function(items), dtype=np.float64)


def domain_rows(count: int, steps: int, hidden: int) -> Rows:
    """Generated domains against ordinary ones."""
    labelled = domains.labelled(count)
    train, test = labelled[: count * 4 // 5], labelled[count * 4 // 5 :]
    items, odd = [domain for domain, _ in test], [odd for _, odd in test]
    known = [charlm.Text.of([d for d, odd in train if odd is kind], split="95/5/0") for kind in (False, True)]
    counted = [charlm.ngram(text, order=4, smoothing="kneser-ney") for text in known]
    trained = [network(text, steps=steps, hidden=hidden) for text in known]
    values = {
        "two n-grams of order 4": bits(counted[0], items) - bits(counted[1], items),
        f"two GRUs of {hidden} units": bits(trained[0], items) - bits(trained[1], items),
        "logistic regression on n-grams": logistic(train, items),
        "GRU of ordinary ones alone, bits a character": bits(trained[0], items) / [len(item) + 1 for item in items],
    }
    return [(f"domains, {title}", f"area {area_under_curve(value, odd):.4f}") for title, value in values.items()]


def log_rows(count: int, steps: int, hidden: int) -> Rows:
    """Strange lines among ordinary ones."""
    chance = random.Random(0)
    text = charlm.Text.of([logs.ordinary(chance) for _ in range(count)], split="95/5/0")
    items, odd = logs.mixed(chance, count // 2)
    size = [len(item) + 1 for item in items]
    found = []
    for title, model in {
        "order-8 Kneser-Ney": charlm.ngram(text, order=8, smoothing="kneser-ney"),
        f"GRU of {hidden} units": network(text, steps=steps, hidden=hidden),
    }.items():
        value = bits(model, items)
        mean, whole = area_under_curve(value / size, odd), area_under_curve(value, odd)
        found.append((f"log lines, {title}", f"area {mean:.4f} by bits a character, {whole:.4f} by bits of the line"))
    return found


def main(small: bool = False) -> str:
    """Makes the three lists and measures the models of each."""
    if small:
        rows = [*name_rows(300, 5, 8), *domain_rows(200, 5, 8), *log_rows(100, 5, 8)]
    else:
        rows = [*name_rows(20_000, 1000, 128), *domain_rows(10_000, 600, 128), *log_rows(4000, 500, 96)]
    return "\n".join(f"{title:54} {value}" for title, value in rows)


if __name__ == "__main__":
    script(main, "items")
