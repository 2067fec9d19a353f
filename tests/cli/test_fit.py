"""`charlm fit` and `charlm predict` as a newcomer uses them, right and wrong."""

from __future__ import annotations

import csv
import io
import json
import random
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import charlm as door
from charlm.sequences.config import RowSplit
from charlm.sequences.estimators import SequenceClassifier
from charlm.sequences.metrics import accuracy, brier_score, log_loss
from charlm.tensors import read_arrays, write_npz
from charlm.text.tables import read_table
from tests.conftest import Run


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures take longer than these fits."""
    monkeypatch.setattr("charlm.sequences.fit.drawn", lambda what, act, say: None)


FIXTURES = Path(__file__).parents[1] / "fixtures" / "format-1"
SMALL = ("--cell", "gru", "--hidden", 8, "--batch-size", 16, "--lr", 0.03, "--backend", "torch")


def timeless(said: Any) -> Any:
    """What a fit says without the seconds that it took, which stand last in the table of models."""
    if isinstance(said, str):
        return re.sub(r"(?m)^((?:rnn|counted|linear|trees|mix)\b.*) [\d.]+$", r"\1", said)
    return {**said, "models": [{**each, "seconds": 0} for each in said.get("models", ())]}


def mails(rows: int = 90) -> str:
    """What a German spreadsheet saves: a mark, semicolons, quotes, Windows line ends."""
    chance = random.Random(1)
    out = io.StringIO(newline="")
    writer = csv.writer(out, delimiter=";", lineterminator="\r\n")
    writer.writerow(["Nr", "Betreff; kurz", "Spam"])
    for number in range(rows):
        yes = chance.random() < 0.4
        text = chance.choice(["Gewinn!!", 'jetzt "gratis"!'] if yes else ["Plan; neu", "Grüße aus Köln"])
        writer.writerow([number, f"{text} {number}", int(yes)])
    return "\ufeff" + out.getvalue()


def waves(rows: int = 60) -> dict[str, Any]:
    """Two numbers a step, of different lengths; the class is in the mean of the first."""
    chance = np.random.default_rng(0)
    y = chance.integers(0, 3, rows)
    x = chance.normal(size=(rows, 6, 2)) + 3 * (y[:, None, None] - 1) * [1, 0]
    return {"x": x, "y": np.array(["down", "flat", "up"])[y], "lengths": chance.integers(2, 7, rows)}


@pytest.mark.slow
def test_a_spreadsheets_table_becomes_a_score(charlm: Run) -> None:
    Path("mails.csv").write_bytes(mails().encode())
    columns = ("--sequence-column", "Betreff; kurz", "--label-column", "Spam")
    code, out, err = charlm("fit", "mails.csv", *columns, *SMALL, "--max-steps", 60, "--plot", "r.svg", "--json")
    assert code == 0, err
    assert "--mode score, because the labels are numbers in 0..1" in err
    assert "train 72, valid 9, test 9" in err
    found = json.loads(out)
    assert (found["part"], found["targets"]) == ("test", 9)
    assert found["accuracy"] == found["area_under_curve"] == 1
    assert found["log_loss"] < found["base"]["log_loss"]
    directory = Path(found["directory"])
    assert directory == Path("checkpoints/mails-gru")
    names = {path.name for path in directory.iterdir()}
    assert {"best.safetensors", "config.json", "curve.png", "reliability.png", "metrics.jsonl"} <= names
    assert "<svg" in Path("r.svg").read_text()
    kept = json.loads((directory / "config.json").read_text())
    assert kept["result"]["log_loss"] == found["log_loss"]

    code, out, err = charlm("predict", directory, "mails.csv")
    assert code == 0, err
    assert out.encode().startswith("\ufeff".encode())
    before = [*csv.reader(io.StringIO(mails()[1:], newline=""), delimiter=";")]
    after = [*csv.reader(io.StringIO(out[1:], newline=""), delimiter=";")]
    assert after[0] == [*before[0], "score"]
    assert [row[:3] for row in after] == before
    # the figures that the fit reported are those of the test rows' scores, and the base rate the training part's mean
    parts = RowSplit.parse("80/10/10").parts(90)
    scores = np.array([float(row[3]) for row in after[1:]])
    labels = np.array([float(row[2]) for row in before[1:]])
    test = parts["test"]
    assert found["log_loss"] == pytest.approx(log_loss(scores[test], labels[test]), rel=1e-4)
    assert found["brier"] == pytest.approx(brier_score(scores[test], labels[test]), rel=1e-4)
    assert found["base"]["guess"] == pytest.approx(labels[parts["train"]].mean())
    assert "made from this table" in err
    described = charlm("info", directory)[1]
    assert "score (one number)" in described
    assert "'Betreff; kurz'" in described


@pytest.mark.slow
def test_arrays_become_a_distribution(charlm: Run) -> None:
    Path("waves.npz").write_bytes(write_npz(waves()))
    code, out, err = charlm("fit", "waves.npz", *SMALL, "--max-steps", 60, "--out", "run")
    assert code == 0, err
    assert "--mode distribution, because the labels are names" in err
    assert "input by z-score" in err
    assert out.splitlines()[-1] == "run"
    assert "came, said:" in out
    assert Path("run/confusion.png").stat().st_size > 1000
    code, out, err = charlm("predict", "run", "waves.npz", "--out", "said.npz", "--no-labels")
    assert (code, out) == (0, "said.npz\n"), err
    said, given = read_arrays(Path("said.npz").read_bytes(), "said"), waves()
    p = np.stack([said[f"p_{name}"] for name in ("down", "flat", "up")], axis=1)
    assert np.abs(p.sum(axis=1) - 1).max() < 1e-6
    assert (said["x"] == given["x"]).all()
    assert (said["class"] == np.array(["down", "flat", "up"])[p.argmax(axis=1)]).all()
    names = np.array([("down", "flat", "up").index(name) for name in given["y"]])
    found = json.loads(charlm("predict", "run", "waves.npz", "--json")[1])
    assert found["figures"]["accuracy"] == pytest.approx(accuracy(p, names))
    assert found["figures"]["accuracy"] > 0.8
    assert found["predictions"][3]["probabilities"]["up"] == pytest.approx(p[3, 2])
    assert charlm("predict", "run", "waves.npz", "--out", "said.npz")[1] == "said-2.npz\n"
    rows = charlm("predict", "run", "waves.npz")[1].splitlines()
    assert rows[0] == "row,y,lengths,class,p_down,p_flat,p_up"
    # what stands behind a sequence's length is padding: it changes nothing
    given["x"] = np.where(np.arange(6)[None, :, None] < given["lengths"][:, None, None], given["x"], np.nan)
    Path("padded.npz").write_bytes(write_npz(given))
    assert charlm("predict", "run", "padded.npz")[1].splitlines()[1:] == rows[1:]


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
def test_labels_for_every_step_in_json_lines(charlm: Run) -> None:
    chance = random.Random(0)
    texts = ["".join(chance.choice("abc") for _ in range(chance.randint(1, 6))) for _ in range(40)]
    lines = [{"id": n, "text": text, "label": ["v" if c == "a" else "k" for c in text]} for n, text in enumerate(texts)]
    Path("t.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    code, out, err = charlm("fit", "t.jsonl", *SMALL, "--max-steps", 60, "--out", "run", "--json")
    assert code == 0, err
    assert json.loads(out)["accuracy"] == 1
    said = [*map(json.loads, charlm("predict", "run", "t.jsonl")[1].splitlines())]
    assert [line["class"] for line in said] == [line["label"] for line in lines]
    assert [line["id"] for line in said] == [*range(40)]
    assert [len(line["p_v"]) for line in said] == [len(text) for text in texts]


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
def test_numbers_in_their_own_units_with_decimal_commas(charlm: Run) -> None:
    chance = np.random.default_rng(0)
    x = chance.random((80, 3)).round(2)
    rows = [";".join((" ".join(f"{v}" for v in row), f"{10 + 20 * row.mean():.2f}")) for row in x]
    Path("t.csv").write_text("\n".join(["x;y", *rows]).replace(".", ","))
    code, out, err = charlm("fit", "t.csv", *SMALL, "--mode", "score", "--max-steps", 5)
    assert code == 2
    assert "row 2, column 'y' of t.csv" in err
    assert "outside 0..1" in err
    code, out, err = charlm(
        "fit", "t.csv", *SMALL, "--mode", "score", "--label-scale", "minmax", "--max-steps", 150, "--json", "--out", "r"
    )
    assert code == 0, err
    found = json.loads(out)
    assert found["r_squared"] > 0.8
    assert found["reliability"] is None
    scale = json.loads(Path("r/config.json").read_text())["model"]["target_scale"]
    labels = np.array([float(row.split(";")[1]) for row in rows])
    train = labels[RowSplit.parse("80/10/10").parts(80)["train"]]
    assert scale["shift"] == [train.min()]  # of the training part alone
    assert scale["width"] == pytest.approx([train.max() - train.min()])
    said = charlm("predict", "r", "t.csv")[1].splitlines()
    scores = np.array([float(line.split(";")[2].replace(",", ".")) for line in said[1:]])
    assert "." not in said[1]
    assert np.abs(scores - labels).mean() < 2


@pytest.mark.usefixtures("undrawn")
def test_going_on_ends_in_the_same_bits(charlm: Run) -> None:
    Path("t.csv").write_bytes(mails(40).encode())
    base = ("fit", "t.csv", *SMALL, "--dropout", 0.3, "--epochs", 4)
    assert charlm(*base, "--out", "whole")[0] == 0
    asked = iter([False] * 3)

    @contextmanager
    def interrupted() -> Iterator[Callable[[], bool]]:
        yield lambda: next(asked, True)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("charlm.sequences.fit.interruptible", interrupted)
        code, out, err = charlm(*base, "--out", "cut")
    assert (code, out) == (130, "")
    assert "charlm fit --resume cut" in err
    code, _, err = charlm("fit", "--resume", "cut")
    assert code == 0, err
    assert "step 8/8" in err
    for name in ("best.safetensors", "last.safetensors"):
        assert Path("cut", name).read_bytes() == Path("whole", name).read_bytes()
    results = [json.loads(Path(name, "config.json").read_text())["result"] for name in ("cut", "whole")]
    assert timeless(results[0]) == timeless(results[1])
    code, _, err = charlm(*base, "--out", "cut", "--mode", "score", "--resume", "cut")  # options that it has
    assert code == 0, err
    for *wrong, has, asked in (
        ("--hidden", 9, "8", "9"),
        ("--split", "50/25/25", "shuffled:0:80/10/10", "shuffled:0:50/25/25"),
        ("--mode", "distribution", "score", "distribution"),
        ("--out", "x", "cut", "x"),
        ("--no-header", "False", "True"),
    ):
        code, _, err = charlm("fit", "--resume", "cut", *wrong)
        assert code == 2
        assert f"{wrong[0]} cannot be changed in a run that goes on: it has {has}, not {asked}" in err
    code, _, err = charlm("train", "--resume", "cut")
    assert (code, "charlm fit --resume cut" in err) == (2, True), err
    Path("t.csv").write_bytes(mails(41).encode())
    code, _, err = charlm("fit", "--resume", "cut")
    assert (code, "changed" in err) == (2, True)


@pytest.mark.usefixtures("undrawn")
def test_the_commands_print_what_the_python_calls_return(charlm: Run) -> None:
    Path("t.csv").write_bytes(mails(60).encode())
    options = {"cell": "gru", "hidden": 8, "batch_size": 16, "lr": 0.03, "max_steps": 6, "backend": "torch"}
    found = door.fit_table("t.csv", **options, out="python")  # type: ignore[arg-type]
    code, out, err = charlm("fit", "t.csv", *SMALL, "--max-steps", 6, "--out", "command")
    assert (code, timeless(out)) == (0, timeless(f"{found!r}\ncommand\n")), err
    printed = json.loads(charlm("fit", "t.csv", *SMALL, "--max-steps", 6, "--out", "json", "--json")[1])
    assert timeless(printed) == timeless({**found.to_json(), "directory": "json"})
    again = door.fit_table("t.csv", **options)  # type: ignore[arg-type]
    assert timeless(again.to_json()) == timeless({**found.to_json(), "directory": None})
    said = door.predict_table("command", "t.csv", progress=False)
    assert charlm("predict", "command", "t.csv")[1].encode() == said.render()[0]
    assert json.loads(charlm("predict", "python", "t.csv", "--json")[1]) == {**said.to_json(), "model": "python"}


@pytest.mark.usefixtures("undrawn")
def test_a_fit_of_the_first_version_is_read_and_goes_on(charlm: Run) -> None:
    shutil.copytree(FIXTURES / "fit", "old")
    shutil.copy(FIXTURES / "words.csv", "words.csv")
    code, out, err = charlm("predict", "old", "words.csv")
    assert (code, out) == (0, (FIXTURES / "fit-said.csv").read_text()), err
    code, _, err = charlm("fit", "--resume", "old", "--max-steps", 22, "--hidden", 3)
    assert code == 0, err
    assert "step 22/22" in err
    Path("new.csv").write_text("text,n\nabcz,1\n,2\nab,3\n")
    code, out, err = charlm("predict", "old", "new.csv")
    assert "1 of 6 characters (17 %) are unknown to the model" in err
    assert "1 of 3 rows have no sequence" in err


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
def test_from_a_language_model(charlm: Run, verse: Path) -> None:
    network = ("--hidden", 6, "--max-steps", 2, "--batch-size", 2, "--seq-length", 8, "--model", "gru")
    assert charlm("train", verse, *network, "--out", "lm")[0] == 0
    Path("t.csv").write_bytes(mails(30).encode())
    base = ("fit", "t.csv", "--init-from", "lm", "--max-steps", 3)
    code, _, err = charlm(*base, "--freeze", "--out", "run")
    assert code == 0, err
    assert "layers frozen" in err
    assert json.loads(Path("run/vocab.json").read_text()) == json.loads(Path("lm/vocab.json").read_text())
    code, _, err = charlm(*base, "--hidden", 9)
    assert (code, "--hidden" in err) == (2, True)
    for command in (("eval", "run", verse), ("sample", "run"), ("next", "run", "a")):
        code, _, err = charlm(*command)
        assert (code, "charlm predict" in err) == (2, True)
    code, _, err = charlm("predict", "lm", "t.csv")
    assert (code, "charlm fit" in err) == (2, True)


@pytest.mark.usefixtures("undrawn")
def test_a_row_without_a_sequence_is_left_blank_and_json_does_not_stop_out(charlm: Run) -> None:
    Path("t.csv").write_text("x,y\n" + "".join(f"{'ab' if n % 2 else 'ba'}{n},{n % 2}\n" for n in range(40)))
    assert charlm("fit", "t.csv", *SMALL, "--max-steps", 2, "--out", "run", "--group", "x")[0] == 0
    assert json.loads(Path("run/config.json").read_text())["data"]["group"] == "x"
    Path("new.csv").write_text("x,note\nab,first\n,second\n  ,third\nba,fourth\n")
    code, out, err = charlm("predict", "run", "new.csv")
    assert (code, "2 of 4 rows have no sequence in column 'x' (3, 4): left blank" in err) == (0, True)
    rows = [*csv.reader(io.StringIO(out))]
    assert [row[:2] for row in rows] == [
        ["x", "note"],
        ["ab", "first"],
        ["", "second"],
        ["  ", "third"],
        ["ba", "fourth"],
    ]
    assert [row[2] == "" for row in rows] == [False, False, True, True, False]
    code, out, err = charlm("predict", "run", "new.csv", "--json", "--out", "said.csv")
    found = json.loads(out)
    assert code == 0
    assert [(each["row"], each["score"] is None) for each in found["predictions"]] == [
        (2, False),
        (3, True),
        (4, True),
        (5, False),
    ]
    assert [*csv.reader(io.StringIO(Path("said.csv").read_text()))] == rows
    written = Path("said.csv").read_text()
    assert "said.csv is taken" in charlm("predict", "run", "t.csv", "--out", "said.csv")[2]
    assert Path("said.csv").read_text() == written
    assert "is taken" not in charlm("predict", "run", "t.csv", "--out", "said.csv", "--force")[2]
    assert Path("said.csv").read_text() != written
    Path("t.csv").rename("moved.csv")
    code, _, err = charlm("fit", "--resume", "run", "--max-steps", 3)
    assert code == 2
    assert "charlm fit NEW_PATH --resume run" in err
    assert charlm("fit", "moved.csv", "--resume", "run", "--max-steps", 3)[0] == 0
    Path("none.csv").write_text("x,note\n,first\n")
    assert charlm("predict", "run", "none.csv")[0] == 2


@pytest.mark.usefixtures("undrawn")
def test_labels_of_every_step_are_written_into_delimited_text(charlm: Run) -> None:
    rows = "".join(f"ab{n},x y x\nba,y x\n" for n in range(10))
    Path("t.csv").write_text("text,label\n" + rows)
    common = ("--mode", "distribution", "--output", "every", *SMALL)
    code, _, err = charlm("fit", "t.csv", *common, "--max-steps", 2, "--out", "run")
    assert code == 0, err
    code, out, err = charlm("predict", "run", "t.csv", "--out", "said.csv")
    assert code == 0, err
    code, printed, err = charlm("predict", "run", "t.csv")
    assert (code, printed) == (0, Path("said.csv").read_text()), err
    read = [*csv.DictReader(io.StringIO(printed))]
    assert [(each["text"], each["label"]) for each in read[:2]] == [("ab0", "x y x"), ("ba", "y x")]
    assert [len(each[name].split()) for each in read[:2] for name in ("class", "p_x", "p_y")] == [3] * 3 + [2] * 3


@pytest.mark.usefixtures("undrawn")
def test_what_predict_writes_holds_the_cells_that_it_read(charlm: Run) -> None:
    Path("t.csv").write_bytes(b"x,y,note\n" + b'ab,0,"one\rtwo"\nba,1,\n' * 20)
    code, _, err = charlm("fit", "t.csv", "--label-column", "y", *SMALL, "--max-steps", 1, "--out", "run")
    assert code == 0, err
    assert charlm("predict", "run", "t.csv", "--out", "said.csv")[0] == 0
    code, _, err = charlm("predict", "run", "said.csv", "--out", "again.csv")
    assert code == 0, err
    for name in ("said.csv", "again.csv"):
        assert [*read_table(name).columns["note"]] == ["one\rtwo", ""] * 20
    Path("t.jsonl").write_text('{"x": "ab", "w": null}\n{"w": 1}\n{"x": null}\n')
    code, out, err = charlm("predict", "run", "t.jsonl")
    assert code == 0, err
    first, *others = map(json.loads, out.splitlines())
    assert first == {"x": "ab", "w": None, "score": first["score"]}
    assert others == [{"w": 1}, {"x": None}]
    Path("t.jsonl").write_text('{"x": "ab", "w": 0}\n{"x": "ab", "w": 1e400}\n')
    code, out, err = charlm("predict", "run", "t.jsonl")
    assert (code, out) == (2, "")
    assert "line 2 of t.jsonl: 1e400 is too large a number" in err


@pytest.mark.usefixtures("undrawn")
def test_the_passes_of_pretraining_belong_to_the_fit(charlm: Run) -> None:
    Path("t.csv").write_text("x,y\n" + "ab,0\nba,1\n" * 20)
    code, _, err = charlm("fit", "t.csv", *SMALL, "--pretrain", 1, "--max-steps", 1, "--out", "run")
    assert code == 0, err
    code, _, err = charlm("fit", "--resume", "run", "--pretrain", 2, "--max-steps", 2)
    assert (code, "--pretrain cannot be changed in a run that goes on: it has 1.0, not 2.0" in err) == (2, True), err
    code, _, err = charlm("fit", "--resume", "run", "--pretrain", 1, "--max-steps", 2)
    assert code == 0, err


@pytest.mark.usefixtures("undrawn")
def test_an_estimator_that_was_saved_predicts_from_a_table(charlm: Run) -> None:
    texts = [f"{'ab' if n % 2 else 'xy'}{n}" for n in range(30)]
    model = SequenceClassifier(hidden=4, max_steps=3).fit(texts, [n % 2 for n in range(30)])
    model.save("kept")
    Path("t.csv").write_text("text\n" + "\n".join(texts) + "\n")
    code, out, err = charlm("predict", "kept", "t.csv", "--sequence-column", "text")
    assert code == 0, err
    p = [float(line.split(",")[-1]) for line in out.splitlines()[1:]]
    assert p == pytest.approx(model.predict_proba(texts)[:, 1], abs=1e-4)


def wrong_uses() -> list[tuple[tuple[object, ...], str]]:
    contents = {
        "empty.csv": "",
        "header.csv": "x,y\n",
        "ragged.csv": "x,y\n1 2;3 4,0\n1 2;3,1\n",
        "outside.csv": "x,y\na,0.5\nb,7\n",
        "missing.csv": "x,y\na,0.5\nb,\n",
        "unknown.csv": "x,y\n" + "a,0\nb,1\n" * 20 + "c,2\n",
        "three.csv": "a,b,c\n1,2,3\n",
        "tiny.csv": "x,y\na,0\nb,1\n",
        "other.csv": "text,y\na,0\n",
        "one.csv": "x,y\na,yes!\nb,yes!\n",
        "good.csv": "x,y\n" + "ab,0\nba,1\n" * 20,
        "book.xlsx": "PK\x03\x04 xl/workbook.xml",
        "wide.csv": "x,y\n" + "1 2;3 4,0\n5 6,1\n" * 20,
    }
    for name, content in contents.items():
        Path(name).write_text(content)
    return [
        (("fit",), "name a table"),
        (("fit", "missing-file.csv"), "there is no file"),
        (("fit", "empty.csv"), "is empty"),
        (("fit", "header.csv"), "no rows"),
        (("fit", "book.xlsx"), "save it there as CSV"),
        (("fit", "ragged.csv"), "row 3, column 'x' of ragged.csv: step 2 has 1 features"),
        (("fit", "outside.csv", "--mode", "score"), "row 3, column 'y' of outside.csv: 7 is outside 0..1"),
        (("fit", "missing.csv"), "row 3, column 'y' of missing.csv is empty"),
        (("fit", "three.csv"), "--sequence-column"),
        (("fit", "good.csv", "--label-column", "z"), "no column 'z'"),
        (("fit", "good.csv", "--label-column", "x", "--sequence-column", "x"), "cannot hold both"),
        (("fit", "tiny.csv"), "2 rows"),
        (("fit", "one.csv"), "one class alone"),
        (("fit", "good.csv", "--split", "90/20/0"), "sum to 100"),
        (("fit", "good.csv", "--input", "numbers"), "row 2, column 'x' of good.csv: 'ab' is not a number"),
        (("fit", "good.csv", "--scale", "zscore"), "text has no scale"),
        (("fit", "good.csv", "--hidden", 0), "hidden"),
        (("fit", "good.csv", "--dropout", 1), "dropout"),
        (("fit", "good.csv", "--batch-size", 0), "batch-size"),
        (("fit", "good.csv", "--epochs", "nan"), "epochs"),
        (
            ("fit", "good.csv", "--pretrain", "nan"),
            "--pretrain is a number of passes over the texts, 0 or more, not nan",
        ),
        (("fit", "good.csv", "--pretrain", -1), "--pretrain is a number of passes over the texts, 0 or more, not -1"),
        (("fit", "wide.csv", "--pretrain", 1), "pretraining is for texts"),
        (("fit", "good.csv", "--save-every", "nan"), "--save-every is a number of seconds, 0 or more, not nan"),
        (("fit", "good.csv", "--save-every", -1), "--save-every is a number of seconds, 0 or more, not -1"),
        (("fit", "good.csv", "--model", "trees"), "there is no model 'trees' of these sequences"),
        (("fit", "wide.csv", "--model", "counted"), "there is no model 'counted' of these sequences"),
        (("fit", "good.csv", "--model", "mix", "--split", "100/0/0"), "there is no model 'mix' of these sequences"),
        (("fit", "--resume", "run", "--model", "trees"), "there is no model 'trees' of these sequences"),
        (("fit", "good.csv", "--freeze"), "--init-from"),
        (("fit", "good.csv", "--init-from", "nothing"), "no model directory"),
        (("fit", "good.csv", "--plot", "p.gif"), ".png"),
        (("fit", "good.csv", "--mode", "guess"), "guess"),
        (("fit", "good.csv", "--encoding", "klingon"), "klingon"),
        (("fit", "--resume", "nothing"), "no model directory"),
        (("predict", "nothing", "good.csv"), "no model directory"),
        (("predict", "run", "other.csv"), "no column 'x'"),
        (("predict", "run", "unknown.csv"), "row 42, column 'y' of unknown.csv: '2' is none of the classes"),
        (("predict", "run", "good.csv", "--out", "p.npz"), "no table of arrays"),
        (("predict", "run", "good.csv", "--label-column", "z"), "no column 'z'"),
        (("predict", "numbers", "good.csv"), "row 2, column 'x' of good.csv: 'ab' is not a number"),
    ]


@pytest.mark.usefixtures("undrawn")
def test_wrong_uses_give_one_sentence_and_exit_2(charlm: Run, tmp_path: Path) -> None:
    uses = wrong_uses()
    quick = ("--hidden", 2, "--max-steps", 1, "--backend", "torch")
    assert charlm("fit", "good.csv", "--mode", "distribution", *quick, "--out", "run")[0] == 0
    assert charlm("fit", "wide.csv", *quick, "--out", "numbers")[0] == 0
    for arguments, message in uses:
        code, out, err = charlm(*arguments)
        assert code == 2, (arguments, err)
        assert message in err, (arguments, err)
        assert "Traceback" not in err
        assert out == ""
        assert not (tmp_path / "checkpoints").exists(), arguments


@pytest.mark.usefixtures("undrawn")
def test_a_broken_description_is_a_sentence(charlm: Run) -> None:
    Path("t.csv").write_text("x,y\n" + "ab,0\nba,1\n" * 10)
    assert charlm("fit", "t.csv", "--hidden", 2, "--max-steps", 1, "--backend", "torch", "--out", "run")[0] == 0
    config = json.loads(Path("run/config.json").read_text())
    for key, value in (("base", []), ("classes", ["a"]), ("mode", "x"), ("split", "x"), ("sequence", 1), ("more", 1)):
        broken = {**config, "data": {**config["data"], key: value}}
        Path("run/config.json").write_text(json.dumps(broken))
        code, out, err = charlm("predict", "run", "t.csv")
        assert (code, out, err.count("\n")) == (2, "", 1), (key, err)
    Path("run/config.json").write_text(json.dumps({**config, "data": {}}))
    assert charlm("predict", "run", "t.csv")[0] == 2
    assert charlm("info", "run")[0] == 0
