"""The script that reproduces published figures: its windows, its recipes and its grid."""

import argparse
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import quality, quality_grid, quality_minutes, quality_runs
from benchmarks.grid_picture import GridCell, draw_grid
from charlm.cli.make import train_command
from charlm.errors import CharlmError
from charlm.recurrent.model import CharRNN, RNNConfig
from charlm.text.corpus import corpus_of_text, read_corpus
from charlm.text.splits import Split
from charlm.text.text import Part, Text


def test_windows_are_drawn_from_all_places_alike() -> None:
    spans = np.array([[3, 9], [20, 24], [30, 37]])  # two, none and three windows of four targets
    found = quality.window_segments(spans, 6000, length=4)
    starts, counts = np.unique(found[:, 0], return_counts=True)
    assert starts.tolist() == [3, 4, 30, 31, 32]
    assert counts.min() > 1000
    assert (found[:, 1] == found[:, 0] + 1).all()
    assert (found[:, 2] == found[:, 0] + 5).all()
    with pytest.raises(CharlmError, match="5 characters in a row"):
        quality.window_segments(spans[1:2], 3, length=4)


def test_windows_begin_with_a_state_of_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quality, "WINDOW", 12)
    monkeypatch.setattr(quality.window_segments, "__kwdefaults__", {"length": 12, "seed": 0})
    corpus = corpus_of_text("she sells sea shells by the sea shore; " * 4)
    model = CharRNN(corpus.vocab, RNNConfig(model="gru", hidden=5))
    model.reset_parameters(torch.Generator().manual_seed(2))
    held = Part(text=Text(corpus=corpus, split=None), name="all", spans=np.array([[10, 90]]))
    found = quality.windows(model, held, 9)
    nats = []
    for start, _, end in quality.window_segments(held.spans, 9, length=12).tolist():
        text = torch.from_numpy(corpus.ids[start:end].astype(np.int64))[:, None]
        with torch.no_grad():
            logp, _ = model.target_logprobs(text[:-1], text[1:], model.initial_state(1))
        assert len(logp) == 12
        nats.append(-float(logp.mean()))
    assert found["nats"] == pytest.approx(np.mean(nats), abs=1e-6)
    assert found["standard_error"] == pytest.approx(np.std(nats, ddof=1) / 3, abs=1e-6)


def test_recipes_are_options_that_the_command_takes() -> None:
    known = {option for parameter in train_command.params for option in parameter.opts}
    for recipe in quality.RECIPES.values():
        Split.parse(recipe.split)
        assert set(recipe.options[::2]) <= known
        assert not any(word.startswith("--") for word in recipe.options[1::2])


@pytest.mark.slow
def test_a_recipe_gives_a_row(verse: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = quality.Recipe(split="70/30/0", options=("--hidden", "6", "--minutes", "9", "--batch-size", "2"))
    out = tmp_path / "runs"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(quality.RECIPES, "small", recipe)
        quality.main(["small", "--text", str(verse), "--epochs", "0.05", "--windows", "3", "--out", str(out)])
    (row,) = (json.loads(line) for line in (out / "results.jsonl").read_text().splitlines())
    kept = json.loads((out / "small-0" / "config.json").read_text())
    assert row["nats"] == kept["result"]["nats"]
    assert row["steps"] >= 1
    assert row["seconds"] > 0
    assert kept["training"]["optimisation"]["minutes"] is None
    assert row["weights"] == sum(p.numel() for p in quality_runs.load(out / "small-0", device="cpu").parameters())
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].startswith(f"| small | 0 | {row['nats']:.4f} ± ")
    assert lines[3].startswith("| small | median of 1 | ")
    with pytest.raises(SystemExit, match="unknown recipe"):
        quality.main(["smal"])


@pytest.mark.slow
def test_the_grid_trains_each_cell_once(
    verse: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, few in {"MODELS": ("gru",), "LAYERS": (1, 2), "HIDDEN": (4,), "ORDERS": [1, 2]}.items():
        monkeypatch.setattr(quality_grid, name, few)
    begun: list[str] = []
    monkeypatch.setattr(quality_grid, "train", lambda words: begun.append(words[0]) or quality_runs.train(words))
    out = tmp_path / "grid"
    (tmp_path / "grid").mkdir()
    (out / "grid.jsonl").write_text('{"name": "gru-1x4", "cut')  # of a process that was killed
    words = ["grid", "--text", str(verse), "--epochs", "0.1", "--out", str(out)]
    quality.main(words)
    first = capsys.readouterr().out
    rows = quality_grid.read_rows(out / "grid.jsonl")
    assert [row["name"] for row in rows] == ["gru-1x4", "gru-2x4"]
    quality.main(words)
    assert len(begun) == 2
    assert first.split("\n\n", 1)[1] == capsys.readouterr().out.split("\n", 1)[1]
    assert (out / "grid.png").read_bytes().startswith(b"\x89PNG")
    assert f"| 1 x 4 | {'**' if rows[0]['nats'] < rows[1]['nats'] else ''}{rows[0]['nats']:.4f}" in first
    parts = read_corpus([verse]).parts(Split.parse("90/10/0"))
    text = verse.read_text()
    pairs = {text[i : i + 2] for i in range(len(text[: parts["train"][0, 1]]) - 1)}
    held = text[parts["valid"][0, 0] : parts["valid"][0, 1]]
    covered = np.mean([held[i : i + 2] in pairs for i in range(len(held) - 1)])
    assert f"| 1 | {len(pairs)} | {100 * covered:.2f} % |" in first


def test_a_cell_that_was_interrupted_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "rnn-1x64-5").mkdir()
    (tmp_path / "rnn-1x64-5" / "state-10.safetensors").touch()

    def stop(words: list[str]) -> Path:
        raise KeyError(*words)

    monkeypatch.setattr(quality_grid, "train", stop)
    with pytest.raises(KeyError, match=r"'--resume', '.*rnn-1x64-5', 'text'"):
        quality_grid.train_cell("rnn-1x64", "rnn", 1, 64, "text", 5.0, Split(), tmp_path)
    with pytest.raises(KeyError, match="'--hidden', '128'"):
        quality_grid.train_cell("rnn-1x128", "rnn", 1, 128, "text", 5.0, Split(), tmp_path)


def test_the_picture_shows_every_line_and_the_levels_near_them(tmp_path: Path) -> None:
    nats = {"rnn": 2.0, "gru": 1.7, "lstm": 1.8}
    cells = [
        GridCell(model=model, layers=layers, hidden=hidden, nats=value - 0.001 * hidden)
        for model, value in nats.items()
        for layers in (1, 2)
        for hidden in (64, 128)
    ]
    levels = {"Kneser-Ney 1": 9.0, "Kneser-Ney 4": 1.62, "Kneser-Ney 5": 1.619}
    with pytest.MonkeyPatch.context() as patch:
        import matplotlib as mpl

        patch.setitem(mpl.rcParams, "svg.fonttype", "none")
        draw_grid(cells, levels, tmp_path / "grid.svg", title="a grid")
    svg = (tmp_path / "grid.svg").read_text()
    for said in ("RNN", "GRU", "LSTM", "1 layer", "2 layers", "Kneser-Ney 4, 1.620", "Kneser-Ney 5, 1.619", "a grid"):
        assert f">{said}</" in svg
    assert "Kneser-Ney 1" not in svg
    with pytest.raises(CharlmError, match="nothing to draw"):
        draw_grid([GridCell(model="rnn", layers=1, hidden=4, nats=float("nan"))], {}, tmp_path / "no.png")


def test_operations_are_counted_by_hand() -> None:
    assert quality_minutes.operations(weights=100, characters=10, places=0) == 6 * 100 * 10
    assert quality_minutes.operations(weights=100, characters=10, places=2) == 6 * (100 + 2 * (32 + 6)) * 10


@pytest.mark.slow
def test_minutes_are_trained_once(
    verse: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    begun: list[str] = []
    monkeypatch.setattr(quality_minutes, "train", lambda words: begun.append(words[0]) or quality_runs.train(words))
    words = ["minutes", f"{verse}=70/15/15", "--minutes", "0.02", "0.04", "--out", str(tmp_path / "runs")]
    quality.main(words)
    first = capsys.readouterr().out
    quality.main(words)
    assert len(begun) == 2
    assert first.split("\n\n", 1)[1] == capsys.readouterr().out.split("\n", 1)[1]
    rows = quality_grid.read_rows(tmp_path / "runs" / "minutes.jsonl")
    assert [row["minutes"] for row in rows] == [0.02, 0.04]
    for row in rows:
        kept = json.loads((Path(row["directory"]) / "config.json").read_text())
        read = row["steps"] * kept["training"]["lanes"] * kept["training"]["window"]
        assert row["nats"] == kept["result"]["nats"]
        assert row["operations"] == 6.0 * (row["weights"] + 38 * kept["model"]["look_back"]) * read
        assert row["readings"] == pytest.approx(read / kept["text"]["characters"])
    assert (tmp_path / "runs" / "minutes.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("texts", [[], ["a.txt"], ["a.txt", "b.txt=90/5/5"]])
def test_minutes_ask_for_texts_with_their_splits(texts: list[str], tmp_path: Path) -> None:
    with pytest.raises(CharlmError, match="texts with their splits"):
        quality.main(["minutes", *texts, "--out", str(tmp_path)])


def test_rates_fall_with_size() -> None:
    assert quality_grid.rate("gru", 3, 256) < quality_grid.rate("gru", 1, 256) < quality_grid.rate("gru", 1, 64)
    assert isinstance(quality.parser().parse_args(["grid"]), argparse.Namespace)
