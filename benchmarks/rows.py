"""The models of `charlm fit` on the two tables that `examples/` makes by chance: medians over seeds.

    python -m benchmarks.rows domains 0 1 2
    python -m benchmarks.rows names 0 1 2

For each seed a table (10,000 domains, 20,000 names), split and fitted by the defaults of `charlm fit` with that seed.
Beside the test part of the table every model is measured on 20,000 rows more, which are made in the same way and do not
stand in the table: the test part of 1,000 rows alone leaves ±0.01 nats to chance.
"""

from __future__ import annotations

import sys
import tempfile
from importlib import import_module
from pathlib import Path
from statistics import median

import numpy as np
import torch

from charlm.sequences import Sequences
from charlm.sequences.figures import distribution_figures
from charlm.sequences.fit import fit_table

ROWS, COLUMNS = {"domains": 10_000, "names": 20_000}, {"domains": ("domain", "class"), "names": ("name", "language")}
FRESH = 20_000
FIGURES = ("log_loss", "area_under_curve", "accuracy")


def measured(kind: str, seed: int) -> dict[str, list[float]]:
    """Of each model: log loss, area and accuracy on the test part, and on fresh rows, and the seconds of its fit."""
    example = import_module(f"examples.{kind}")
    sequence, label = COLUMNS[kind]
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / f"{kind}.csv"
        example.write(path, ROWS[kind], seed)
        known = {line.split(",")[0] for line in path.read_text().splitlines()}
        found = fit_table(path, sequence=sequence, label=label, seed=seed, progress=False)
    rows = [row for row in example.table(FRESH, seed + 77) if row[0] not in known]
    assert found.model.vocab is not None
    inputs = Sequences.of_texts([row[0] for row in rows], found.model.vocab)
    classes, base = found.facts.classes, found.facts.base
    came = np.array([classes.index(row[1]) for row in rows])
    table = {}
    for name, each in found.compared.items():
        said = found.models.probabilities(inputs, name)
        fresh = distribution_figures(said, came, base_V=base, classes=classes)
        values = [part.values[figure] or 0.0 for part in (each.figures, fresh) for figure in FIGURES]
        table[name] = [*values, found.models.seconds[name]]
    return table


def main(kind: str, seeds: list[int]) -> None:
    """Prints the figures of each seed, and their medians."""
    torch.set_num_threads(1)
    heads = [*(f"{part} {figure}" for part in ("test", "fresh") for figure in ("nats", "area", "acc.")), "seconds"]
    print(f"{'':16}" + "".join(f"{head:>12}" for head in heads))
    tables = []
    for seed in seeds:
        tables.append(measured(kind, seed))
        for name, values in tables[-1].items():
            print(f"{f'seed {seed} {name}':16}" + "".join(f"{value:>12.4f}" for value in values), flush=True)
    for name in tables[0]:
        values = [median(column) for column in zip(*(table[name] for table in tables), strict=True)]
        print(f"{f'median {name}':16}" + "".join(f"{value:>12.4f}" for value in values))


if __name__ == "__main__":
    main(sys.argv[1], [int(seed) for seed in sys.argv[2:]])
