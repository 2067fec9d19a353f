"""What is said of models without loading them, against the models themselves."""

from __future__ import annotations

import csv
import io
import json
import math
import shutil
import statistics
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from charlm.checkpoint import TextFacts
from charlm.errors import CheckpointError
from charlm.info import describe
from charlm.listing import runs
from charlm.ngrams.fit import count
from charlm.recurrent.model import CharRNN, RNNConfig
from charlm.text.corpus import corpus_of_text
from charlm.text.splits import Split
from tests import helpers
from tests.conftest import Run

TEXT = corpus_of_text("a rose is a rose is a rose\n" * 20)
SPLIT = Split.parse("80/10/10")


def keep(directory: Path, nats: float | None = None, seed: int = 0, **shape: object) -> CharRNN:
    """A network in a directory as a run of training leaves it, as far as it is read here."""
    model = CharRNN(TEXT.vocab, RNNConfig(**{"model": "gru", "hidden": 5, "layers": 2, **shape}))  # type: ignore[arg-type]
    model.reset_parameters(torch.Generator().manual_seed(seed))
    plan = {
        "lanes": 2,
        "window": 8,
        "backend": "torch" if seed else "fused",
        "optimisation": {"lr": 0.01, "seed": seed},
    }
    result = {"result": {"nats": nats, "perplexity": math.exp(nats), "part": "test"}} if nats is not None else {}
    directory.mkdir(parents=True)
    helpers.keep(directory, model, TextFacts.of(TEXT, SPLIT), training=plan, **result)
    (directory / "metrics.jsonl").write_text('{"step": 1, "seconds": 2.5}\n{"step": 2, "seconds": 4')
    return model


@pytest.mark.parametrize("shape", [{}, {"embedding": 3}, {"model": "lstm", "hidden": 6, "embedding": 6, "tied": True}])
def test_the_number_of_weights_is_the_models(shape: dict[str, object], tmp_path: Path) -> None:
    model = keep(tmp_path / "net", **shape)
    found = describe(tmp_path / "net")
    assert found.weights == sum(parameter.numel() for parameter in model.parameters())
    assert dict(found.facts)["weights"] == f"{found.weights:,}"
    assert found.size == sum(path.stat().st_size for path in (tmp_path / "net").iterdir())
    assert found.symbols == len(TEXT.vocab)
    assert found.to_json()["model"] == asdict(model.config)
    for name, value in found.facts:
        assert value in repr(found)
        assert name in found._repr_html_()


def test_several_models_are_described(charlm: Run, tmp_path: Path) -> None:
    keep(tmp_path / "net")
    parts = TEXT.parts(SPLIT)
    (tmp_path / "counts").mkdir()
    helpers.keep(tmp_path / "counts", count(TEXT, parts, order=2, smoothing="none"), TextFacts.of(TEXT, SPLIT))
    assert isinstance(json.loads(charlm("info", "net", "--json")[1]), dict)
    both = json.loads(charlm("info", "net", "counts", "--json")[1])
    assert [one["kind"] for one in both] == ["rnn", "ngram"]
    assert both[1]["weights"] is None
    shown = charlm("info", "net", "counts")[1]
    assert shown.index("net\n") < shown.index("weights") < shown.index("\ncounts\n")
    assert charlm("info")[0] == 2


def test_runs_lists_all_models_and_means_over_seeds(charlm: Run, tmp_path: Path) -> None:
    nats = (1.5, 1.25, 1.375)
    for seed, value in enumerate(nats):
        keep(tmp_path / "checkpoints" / f"s{seed}", value, seed)
    keep(tmp_path / "checkpoints" / "grid" / "wide", 1.0, 0, hidden=7)
    keep(tmp_path / "checkpoints" / "unmeasured", None, 5)
    (tmp_path / "checkpoints" / "counts").mkdir()
    helpers.keep(
        tmp_path / "checkpoints" / "counts",
        count(TEXT, TEXT.parts(SPLIT), order=3, smoothing="kneser-ney"),
        TextFacts.of(TEXT, SPLIT),
    )
    (tmp_path / "checkpoints" / "broken").mkdir()
    (tmp_path / "checkpoints" / "broken" / "config.json").write_text("{")
    code, out, err = charlm("runs", "--json")
    assert code == 0
    assert err.startswith("left out: checkpoints/broken: ")
    found = json.loads(out)
    rows = {row["name"]: row for row in found["runs"]}
    assert list(rows) == ["counts", "wide", "s0", "s1", "s2", "unmeasured"]
    assert (rows["wide"]["hidden"], rows["wide"]["seed"], rows["wide"]["seconds"]) == (7, 0, 2.5)
    assert (rows["counts"]["order"], rows["counts"]["smoothing"], rows["counts"]["cell"]) == (3, "kneser-ney", None)
    (mean,) = found["seeds"]
    assert mean["names"] == ["s0", "s1", "s2"]
    assert mean["mean"] == pytest.approx(statistics.mean(nats))
    assert mean["deviation"] == pytest.approx(statistics.stdev(nats))
    read = list(csv.DictReader(io.StringIO(charlm("runs", "checkpoints", "--csv")[1])))
    assert [row["nats"] for row in read] == ["", "1.0", "1.5", "1.25", "1.375", ""]
    shown = charlm("runs", "checkpoints")[1]
    assert shown == repr(runs(["checkpoints"])) + "\n"
    assert max(map(len, shown.splitlines()[:-1])) < 80
    assert "gru 2x5, 3 seeds: 1.3750 nats, standard deviation 0.1250 (s0, s1, s2)" in shown
    assert "s2" in runs("checkpoints")._repr_html_()
    shutil.rmtree("checkpoints/s1")
    assert len(runs("checkpoints/s0")) == 1


def test_where_there_is_nothing_it_says_so(charlm: Run, tmp_path: Path) -> None:
    for arguments, words in (
        ((), "no directory checkpoints"),
        ((tmp_path,), "no model under"),
        (("--csv", "--json"), "one of them"),
    ):
        code, out, err = charlm("runs", *arguments)
        assert (code, out) == (2, "")
        assert words in err
    with pytest.raises(CheckpointError, match="no directory"):
        runs("nowhere")
