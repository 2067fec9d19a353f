"""A table as a task: what is fitted comes from the training part alone, and what is remembered reads the same table."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch

from charlm.codec import encode
from charlm.errors import CheckpointError, OptionError, TextError
from charlm.sequences import Sequences
from charlm.sequences.config import RowSplit, SequenceConfig, fit_scales
from charlm.sequences.estimators import SequenceClassifier
from charlm.sequences.fit import fit_table
from charlm.sequences.fit_run import choose_fit
from charlm.sequences.fitted_models import predict_rows
from charlm.sequences.model import SequenceModel
from charlm.sequences.predict import check_config, figures_of
from charlm.sequences.tabular import TableFacts, TableTask, make_task
from charlm.text.tables import read_table

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
    rows = [f"{'ab' * n}ab{'z' if n in PARTS['test'] else ''},1" for n in range(20)]
    task = task_of(tmp_path / "t.csv", rows)
    assert task.vocab is not None
    assert task.vocab.characters == ("a", "b")
    test = task.part("test")
    assert test is not None
    assert set(test.inputs.values.tolist()) == {0, 1, -1}


def test_facts_survive_json_and_lies_are_refused(tmp_path: Path) -> None:
    facts = task_of(tmp_path / "t.csv", [f"1 {n},0.5" for n in range(20)]).facts
    assert TableFacts.read(encode(facts)) == facts
    for key, value in (
        ("base", ["1"]),
        ("classes", "ab"),
        ("rows", True),
        ("mode", "x"),
        ("more", 1),
        ("base", [0.5, 0.5]),
    ):
        with pytest.raises(CheckpointError):
            TableFacts.read({**encode(facts), key: value})
    with pytest.raises(OptionError, match="no option hiden"):
        choose_fit(facts, 16, {"hiden": 64})
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


def test_equal_sequences_stand_on_one_side(tmp_path: Path) -> None:
    """400 random strings five times each with coin flips for labels: there is nothing to learn, and nothing leaks."""
    chance = np.random.default_rng(0)
    strings = ["".join(chance.choice(list("abcdefgh"), 12)) for _ in range(400)]
    flips = chance.integers(0, 2, 400)
    order = chance.permutation(np.repeat(np.arange(400), 5))
    path = tmp_path / "t.csv"
    path.write_text("x,y\n" + "".join(f"{strings[n]},{['no', 'yes'][flips[n]]}\n" for n in order))
    task = make_task(read_table(path), mode="distribution")
    assert {part: len(rows) for part, rows in task.parts.items()} == {"train": 1600, "valid": 200, "test": 200}
    known, held = ({task.inputs.values[row] for row in task.parts[part]} for part in ("train", "test"))
    assert not known & held
    assert any("1,600 rows repeat" in note for note in task.notes)
    labels = np.concatenate(task.labels.values)
    texts = np.array(task.inputs.values)
    model = SequenceClassifier(hidden=32, epochs=6, lr=0.01, device="cpu")
    model.fit(texts[task.parts["train"]].tolist(), labels[task.parts["train"]])
    assert 0.25 < model.score(texts[task.parts["test"]].tolist(), labels[task.parts["test"]]) < 0.75
    old = make_task(read_table(path), mode="distribution", distinct=False)  # as models made before were divided
    assert {old.inputs.values[row] for row in old.parts["train"]} >= {
        old.inputs.values[row] for row in old.parts["test"]
    }


@pytest.mark.parametrize("seed", range(4))
def test_neither_an_equal_sequence_nor_a_group_is_in_two_parts(tmp_path: Path, seed: int) -> None:
    """What a fit by default divides, with a column of groups: texts come again within a group and in others."""
    chance = np.random.default_rng(seed)
    users = chance.integers(0, 120, 600)
    texts = [f"t{user}-{n % 4}" if n % 25 else f"common{n % 40}" for n, user in enumerate(users)]
    path = tmp_path / "t.csv"
    path.write_text(
        "x,y,user\n" + "".join(f"{t},{n % 2},u{u}\n" for n, (t, u) in enumerate(zip(texts, users, strict=True)))
    )
    found = fit_table(path, sequence="x", label="y", group="user", max_steps=1, model="rnn", progress=False)
    parts = make_task(read_table(path), sequence="x", label="y", group="user").parts
    assert sorted(np.concatenate([*parts.values()]).tolist()) == list(range(600))
    assert found.rows == len(parts["test"])
    for one, other in itertools.combinations(parts.values(), 2):
        assert not {texts[row] for row in one} & {texts[row] for row in other}
        assert not {users[row] for row in one} & {users[row] for row in other}


def test_groups_stay_together_and_near_equal_texts_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text(
        "x,y,user\n" + "".join(f"{'Text' if n % 2 else ' text '} {n // 2},{n % 2},u{n % 7}\n" for n in range(70))
    )
    task = make_task(read_table(path), sequence="x", label="y", group="user")
    users = [{table_row % 7 for table_row in rows} for rows in task.parts.values()]
    assert sum(map(len, users)) == 7
    assert any("but for case and spaces" in note for note in task.notes)
    assert TableFacts.read(encode(task.facts)).group == "user"
    with pytest.raises(TextError, match="no column 'team'"):
        make_task(read_table(path), sequence="x", label="y", group="team")
    path.write_text("x,y\n" + "ab,0\nba,1\n" * 10)
    assert any("only 2 different sequences" in note for note in make_task(read_table(path)).notes)
