"""A table as a task: what is fitted comes from the training part alone, and what is remembered reads the same table."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from charlm.errors import CheckpointError
from charlm.sequences.batches import Sequences
from charlm.sequences.fit_recipe import choose_fit
from charlm.sequences.model import SequenceConfig, SequenceModel
from charlm.sequences.row_split import RowSplit
from charlm.sequences.tables import read_table
from charlm.sequences.tabular import TableFacts, TableTask, check_config, figures_of, make_task, predict_rows
from charlm.sequences.tasks import fit_scales

SPLIT = RowSplit.parse("shuffled:3:60/20/20")
PARTS = SPLIT.parts(20)


def task_of(path: Path, rows: list[str], header: str = "x,y") -> TableTask:
    path.write_text("\n".join([header, *rows]) + "\n")
    return make_task(read_table(path), split=SPLIT, mode="score")


def test_held_out_rows_influence_nothing_that_is_fitted(tmp_path: Path) -> None:
    rows = [f"{n} {n + 1} {n * n},{n / 20}" for n in range(20)]
    wild = list(rows)
    for row in (*PARTS["valid"], *PARTS["test"]):
        wild[row] = f"9999 -7777 {row},1"
    tasks = [task_of(tmp_path / "t.csv", each) for each in (rows, wild)]
    scales = []
    for task in tasks:
        train = task.part("train")
        assert train is not None
        plan = choose_fit(task.facts, len(train), {})
        scales.append(fit_scales(plan.network, train, inputs="z-score", targets=True))
    assert scales[0] == scales[1]
    kept = np.concatenate([[n, n + 1, n * n] for n in PARTS["train"]])
    assert scales[0].input_scale is not None
    assert scales[0].input_scale.shift == (pytest.approx(kept.mean()),)
    assert scales[0].input_scale.width == (pytest.approx(kept.std()),)
    assert tasks[0].facts.base == tasks[1].facts.base == (pytest.approx(PARTS["train"].mean() / 20),)


def test_the_vocabulary_is_that_of_the_training_part(tmp_path: Path) -> None:
    rows = [f"ab{'z' if n in PARTS['test'] else ''},1" for n in range(20)]
    task = task_of(tmp_path / "t.csv", rows)
    assert task.vocab is not None
    assert task.vocab.characters == ("a", "b")
    test = task.part("test")
    assert test is not None
    assert set(test.inputs.values.tolist()) == {0, 1, -1}


def test_facts_survive_json_and_lies_are_refused(tmp_path: Path) -> None:
    facts = task_of(tmp_path / "t.csv", [f"1 {n},0.5" for n in range(20)]).facts
    assert TableFacts.from_json(facts.to_json()) == facts
    for key, value in (
        ("base", [1]),
        ("classes", "ab"),
        ("rows", True),
        ("mode", "x"),
        ("more", 1),
        ("base", [0.5, 0.5]),
    ):
        with pytest.raises(CheckpointError):
            TableFacts.from_json({**facts.to_json(), key: value})
    check_config(facts, SequenceConfig(features=1))
    with pytest.raises(CheckpointError):
        check_config(facts, SequenceConfig(features=2))


def test_figures_are_of_what_the_model_says(tmp_path: Path) -> None:
    task = task_of(tmp_path / "t.csv", [f"1 {n},{n % 2}" for n in range(20)])
    torch.manual_seed(0)
    model = SequenceModel(cell="gru", hidden=3)
    part = task.part("test")
    assert part is not None
    seen: list[int] = []
    said = predict_rows(model, part.inputs, seen.append, piece=3)
    assert seen == [3, 1]
    rows = [f"1 {n}" for n in PARTS["test"]]
    alone = [float(model.predict(Sequences.of_numbers([[*map(float, row.split())]]))[0][0]) for row in rows]
    assert np.concatenate(said).ravel() == pytest.approx(alone)
    brier = np.mean([(p - n % 2) ** 2 for p, n in zip(alone, PARTS["test"], strict=True)])
    assert figures_of(said, part.targets, task.facts).values["brier"] == pytest.approx(brier)
