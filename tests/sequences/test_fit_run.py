"""Fits: they learn, they are kept, and a resumed fit is the same fit."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from charlm.checkpoint import load, newest
from charlm.codec import decode, encode
from charlm.errors import CharlmError, CheckpointError, OptionError
from charlm.nn.kernels import CANDIDATES, fastest
from charlm.nn.stack import Stack
from charlm.recurrent.model import CharRNN, RNNConfig
from charlm.sequences import Examples, Sequences
from charlm.sequences.config import SequenceConfig, fit_scales
from charlm.sequences.fit_run import FIT, Fit, FitPlan, choose_fit, resume, start
from charlm.sequences.fitted_models import Models, load_sequence, save_sequence
from charlm.sequences.model import SequenceModel
from charlm.sequences.tabular import TableFacts
from charlm.tensors import read_tensors
from charlm.text.vocab import Vocab
from charlm.training.options import Optimisation
from charlm.training.states import read_saved
from tests.helpers import keep
from tests.training.runs import Stop

CPU = torch.device("cpu")
VOCAB = Vocab.of("abcd")


def texts(seed: int, count: int) -> Examples:
    """Does the text hold an a? Lengths from 1 to 9."""
    chance = torch.Generator().manual_seed(seed)
    rows = ["".join("abcd"[int(i)] for i in torch.randint(0, 4, (1 + n % 9,), generator=chance)) for n in range(count)]
    labels = Sequences.of_labels([int("a" in row) for row in rows])
    return Examples(inputs=Sequences.of_texts(rows, VOCAB), targets=labels)


def numbers(seed: int, count: int) -> Examples:
    """The mean of a few numbers around 1000."""
    chance = torch.Generator().manual_seed(seed)
    rows = [1000 + 10 * torch.randn(1 + n % 5, 2, generator=chance).double().numpy() for n in range(count)]
    return Examples(inputs=Sequences.of_numbers(rows), targets=Sequences.of_numbers([row.mean() for row in rows]))


def plan(network: SequenceConfig | None = None, **options: Any) -> FitPlan:
    network = network or SequenceConfig(
        cell="gru", mode="distribution", features=0, hidden=8, layers=2, dropout=0.3, bidirectional=True
    )
    given = {"lr": 0.02, "epochs": 3.0, "warmup": 2, "validations": 4, **options}
    return FitPlan(network=network, optimisation=Optimisation(**given), batch=16)


TRAIN, VALID = texts(1, 150), texts(2, 40)


def made(directory: Path, chosen: FitPlan | None = None, **more: Any) -> Fit:
    directory.mkdir()
    return start(directory, TRAIN, VALID, chosen or plan(), device=CPU, vocab=VOCAB, data={"table": "t.csv"}, **more)


def curve(directory: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


def assert_equal_files(one: Path, two: Path) -> None:
    for name in ("best", "last"):
        a, b = (read_tensors(each / f"{name}.safetensors")[0] for each in (one, two))
        assert set(a) == set(b)
        assert all(torch.equal(a[key], b[key]) for key in a)
    assert curve(one) == curve(two)


@pytest.mark.parametrize("average", [0.0, pytest.param(0.3, marks=pytest.mark.slow)])
def test_a_resumed_fit_is_the_same_fit(tmp_path: Path, average: float) -> None:
    options = plan(average=average, epochs=2.0)
    grams = {"grams": 256, "gram_order": 4, "gram_dropout": 0.3}
    options = replace(options, network=replace(options.network, **grams))
    assert made(tmp_path / "whole", options).train() == "finished"
    fit = made(tmp_path / "pieces", options)
    for after in (0, 8, 5):
        assert fit.train(should_stop=Stop(after)) == "interrupted"
        fit = resume(tmp_path / "pieces", TRAIN, VALID, device=CPU)
    assert fit.train() == "finished"
    assert_equal_files(tmp_path / "whole", tmp_path / "pieces")
    assert len(list((tmp_path / "pieces").glob("state-*.safetensors"))) == 2


def test_a_frozen_language_model_is_left_alone_and_resumes(tmp_path: Path) -> None:
    lm = CharRNN(VOCAB, RNNConfig(model="lstm", hidden=8, embedding=3))
    for name in ("whole", "pieces"):
        torch.manual_seed(5)
        begun = SequenceModel.from_language_model(lm, mode="distribution", dropout=0.2, freeze=True)
        fit = made(tmp_path / name, model=begun)
        if name == "pieces":
            assert fit.train(should_stop=Stop(7)) == "interrupted"
            fit = resume(tmp_path / name, TRAIN, VALID, device=CPU)
        before = fit.model.head.linear.weight.detach().clone()
        assert fit.train() == "finished"
        assert not torch.equal(before, fit.model.head.linear.weight)
        for mine, theirs in zip(fit.model.stack.parameters(), lm.stack.parameters(), strict=True):
            assert torch.equal(mine, theirs)
            assert not mine.requires_grad
    assert_equal_files(tmp_path / "whole", tmp_path / "pieces")
    assert load_sequence(tmp_path / "whole").model.config.frozen


@pytest.mark.slow
def test_it_learns_and_keeps_what_it_says(tmp_path: Path) -> None:
    fit = made(tmp_path / "fit", plan(epochs=8.0, lr=0.03))
    assert fit.train() == "finished"
    rows = curve(tmp_path / "fit")
    assert rows[-1]["valid_nats"] < 0.1 < rows[0]["valid_nats"]
    kept = load_sequence(tmp_path / "fit")
    assert kept.data == {"table": "t.csv"}
    assert kept.config["training"]["examples"] == 150
    assert kept.name == "fit"
    p = kept.model.predict(VALID.inputs).values
    assert torch.allclose(p, fit.model.predict(VALID.inputs).values, atol=1e-6)
    nats = -p[torch.arange(40), VALID.targets.values].log().mean().item()
    assert nats == pytest.approx(min(row["valid_nats"] for row in rows), abs=1e-5)


@pytest.mark.slow
def test_numbers_of_any_size_are_scaled_and_undone(tmp_path: Path) -> None:
    train, valid = numbers(1, 200), numbers(2, 60)
    shape = SequenceConfig(cell="gru", hidden=16, features=2, loss="squared")
    shape = fit_scales(shape, train, inputs="z-score", targets=True)
    (tmp_path / "fit").mkdir()
    fit = start(tmp_path / "fit", train, valid, plan(shape, epochs=40.0), device=CPU)
    fit.train()
    found = load_sequence(tmp_path / "fit").model.predict(valid.inputs).values
    error = (found - valid.targets.values).abs().mean().item()
    spread = (valid.targets.values - valid.targets.values.mean()).abs().mean().item()
    assert error < spread / 3
    assert not (tmp_path / "fit" / "vocab.json").exists()
    assert resume(tmp_path / "fit", train, valid, device=CPU, budget={"epochs": 41.0}).train() == "finished"
    assert curve(tmp_path / "fit")[-1]["epoch"] == 41


@pytest.mark.slow
def test_other_examples_and_damaged_states(tmp_path: Path) -> None:
    made(tmp_path / "whole").train()
    made(tmp_path / "fit").train(should_stop=Stop(20))
    with pytest.raises(CheckpointError, match="examples have changed"):
        resume(tmp_path / "fit", VALID, TRAIN, device=CPU)
    newest_state = max((tmp_path / "fit").glob("state-*"), key=lambda path: int(path.stem.split("-")[1]))
    newest_state.write_bytes(newest_state.read_bytes()[:-100])
    assert "not a whole weights file" in read_saved(tmp_path / "fit", FIT).notes[0]
    resume(tmp_path / "fit", TRAIN, VALID, device=CPU).train()
    assert_equal_files(tmp_path / "whole", tmp_path / "fit")
    for state in (tmp_path / "fit").glob("state-*"):
        state.unlink()
    with pytest.raises(CheckpointError, match="no whole saved state"):
        resume(tmp_path / "fit", TRAIN, VALID, device=CPU)


def test_each_kind_of_model_is_read_by_its_own_reader(tmp_path: Path) -> None:
    made(tmp_path / "fit")
    with pytest.raises(CheckpointError, match="charlm predict"):
        load(tmp_path / "fit")
    with pytest.raises(CheckpointError, match="no language model under"):
        newest(tmp_path)
    save_sequence(tmp_path / "other", Models(network=SequenceModel(hidden=3)), {})
    assert load_sequence(tmp_path / "other").model.vocab is None
    with pytest.raises(CheckpointError, match="no training run"):
        resume(tmp_path / "other", TRAIN, VALID, device=CPU)


def test_a_language_model_is_no_sequence_model(tmp_path: Path) -> None:
    from charlm.checkpoint import TextFacts
    from charlm.text.corpus import corpus_of_text
    from charlm.text.splits import Split

    corpus = corpus_of_text("abracadabra")
    keep(tmp_path / "lm", CharRNN(corpus.vocab, RNNConfig(hidden=3)), TextFacts.of(corpus, Split()))
    with pytest.raises(CheckpointError, match="charlm fit"):
        load_sequence(tmp_path / "lm")


def test_wrong_descriptions_are_refused_in_a_sentence(tmp_path: Path) -> None:
    model = SequenceModel(SequenceConfig(hidden=6, features=2))
    save_sequence(tmp_path / "fit", Models(network=model), {})
    path = tmp_path / "fit" / "config.json"
    good = json.loads(path.read_text())
    shape = good["model"]
    scale = {"kind": "min-max", "shift": [0.0, 0.0], "width": [1.0, 1.0]}
    cases: list[dict[str, Any]] = [
        {"model": {**shape, "hidden": 7}},
        {"model": {**shape, "hidden": 60_000, "layers": 64}},
        {"model": {**shape, "hidden": "6"}},
        {"model": {**shape, "hidden": True}},
        {"model": {**shape, "mode": []}},
        {"model": {**shape, "mode": "answer"}},
        {"model": {**shape, "features": 0}},
        {"model": {**shape, "dropout": float("nan")}},
        {"model": {**shape, "heads": 8}},
        {"model": []},
        {"model": {**shape, "input_scale": {**scale, "shift": [0.0]}}},
        {"model": {**shape, "input_scale": {**scale, "width": [1.0, 0.0]}}},
        {"model": {**shape, "input_scale": {**scale, "width": [1.0, 10**400]}}},
        {"model": {**shape, "input_scale": {**scale, "kind": ["min-max"]}}},
        {"model": {**shape, "target_scale": scale}},
        {"model": {**shape, "classes": 10**12}},
        {"data": []},
        {"kind": {}},
        {"format": 99},
    ]
    for values in cases:
        path.write_text(json.dumps({**good, **values}))
        with pytest.raises(CheckpointError):
            load_sequence(tmp_path / "fit")
    path.write_text(json.dumps({key: value for key, value in good.items() if key != "data"}))
    with pytest.raises(CheckpointError, match="not the description"):
        load_sequence(tmp_path / "fit")


def test_plans_come_back_and_wrong_ones_are_refused(tmp_path: Path) -> None:
    chosen = plan()
    assert decode(FitPlan, json.loads(json.dumps(encode(chosen)))) == chosen
    with pytest.raises(CharlmError, match="not whole"):
        decode(FitPlan, {"network": {}})
    with pytest.raises(OptionError, match="batch-size"):
        FitPlan(network=SequenceConfig(), optimisation=chosen.optimisation, batch=0)
    (tmp_path / "fit").mkdir()
    with pytest.raises(OptionError, match="no label"):
        start(
            tmp_path / "fit",
            Examples(inputs=VALID.inputs, targets=Sequences.of_labels([2] * 40)),
            None,
            plan(),
            device=CPU,
            vocab=VOCAB,
        )
    assert not list((tmp_path / "fit").iterdir())


def test_strings_of_four_characters_are_for_classes_with_many_rows() -> None:
    known: dict[str, Any] = {"table": "t", "sha256": "", "sequence": "x", "label": "y", "input": "text", "features": 0}
    four, large, small = (4, 0.3, 0.5, 0.1), (3, 0.6, 0.3, 0.0), (3, 0.0, 0.5, 0.1)
    tables = (2, 4000, four), (2, 3999, small), (18, 16_000, large), (18, 9_999, small), (0, 4000, four)
    for classes, rows, chosen in tables:
        mode, base = ("distribution", (1 / classes,) * classes) if classes else ("score", (0.5,))
        names = tuple(map(str, range(classes)))
        facts = TableFacts(rows=rows, mode=mode, classes=names, base=base, split="80/10/10", **known)
        network = choose_fit(facts, rows, {}).network
        assert (network.gram_order, network.gram_dropout, network.dropout, network.input_dropout) == chosen
        assert choose_fit(facts, rows, {"input_dropout": 0.2}).network.input_dropout == 0.2
        assert choose_fit(facts, rows, {"grams": 0}).network.grams == 0


def test_plans_from_before_longer_strings_are_read_as_they_were() -> None:
    kept = encode(plan(SequenceConfig(features=0, grams=64)))
    for name in ("gram_order", "gram_dropout"):
        del kept["network"][name]
    network = decode(FitPlan, kept).network
    assert (network.grams, network.gram_order, network.gram_dropout) == (64, 3, 0.0)


def test_layers_are_run_as_is_fastest_for_the_examples(tmp_path: Path) -> None:
    fit = made(tmp_path / "fit")  # lengths differ: torch's packed sequences
    assert fit.plan.backend == fit.description()["training"]["backend"] == fit.model.stack.backend == "torch"
    stack = Stack("lstm", inputs=3, hidden=4, bidirectional=True)
    assert fastest(stack, 5, 2, dense=True, seconds=0) in CANDIDATES
    assert (stack.backend, stack.training) == ("reference", True)
