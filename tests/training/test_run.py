"""Runs: they learn, they end when told, and a resumed run is the same run."""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from charlm.checkpoint import load
from charlm.codec import decode, encode
from charlm.errors import CharlmError, CheckpointError, OptionError
from charlm.nn.kernels import compiled, pick_device
from charlm.tensors import read_tensors, write_tensors
from charlm.text.corpus import corpus_of_text
from charlm.text.splits import Split
from charlm.text.text import Text
from charlm.training.interfaces import Observer, StepReport
from charlm.training.options import Budget, Optimisation
from charlm.training.recipe import DEFAULT_EPOCHS, Plan, choose
from charlm.training.states import DirectoryKeeper
from charlm.training.train import train
from tests.training.runs import Stop, resume, start

TEXT = "the quick brown fox jumps over the lazy dog. the lazy dog sleeps; the quick fox jumps.\n" * 30
CORPUS = corpus_of_text(TEXT)
SPLIT = Split.parse("80/10/10")
CPU = torch.device("cpu")


def plan(cell: str = "gru", **options: Any) -> Plan:
    given = {"model": cell, "hidden": 16, "layers": 2, "dropout": 0.3, "lanes": 4, "window": 12, "lr": 0.02}
    given |= {"weight_dropout": 0.1, "input_dropout": 0.1, "average": 0.1}
    return choose(len(CORPUS), CPU, {**given, "max_steps": 60, "backend": "fused", **options})


def run(directory: Path, stops: list[int], cell: str = "gru") -> str:
    directory.mkdir()
    outcome: str = start(directory, CORPUS, SPLIT, plan(cell), CPU).train(
        should_stop=Stop(stops[0]) if stops else lambda: False
    )
    for after in [*stops[1:], 10**9] if stops else []:
        assert outcome == "interrupted"
        outcome = resume(directory, CORPUS, CPU).train(should_stop=Stop(after))
    return outcome


def metrics(directory: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


@pytest.mark.parametrize(
    "cell", [pytest.param("rnn", marks=pytest.mark.slow), pytest.param("gru", marks=pytest.mark.slow), "lstm"]
)
def test_a_resumed_run_is_the_same_run(tmp_path: Path, cell: str) -> None:
    whole = run(tmp_path / "whole", [], cell)
    pieces = run(tmp_path / "pieces", [0, 17, 5], cell)
    assert whole == pieces == "finished"
    for name in ("best", "last"):
        a, _ = read_tensors(tmp_path / "whole" / f"{name}.safetensors")
        b, _ = read_tensors(tmp_path / "pieces" / f"{name}.safetensors")
        assert all(torch.equal(a[key], b[key]) for key in a)
    assert metrics(tmp_path / "whole") == metrics(tmp_path / "pieces")


def test_the_averaged_weights_are_kept(tmp_path: Path) -> None:
    """The mean by its definition, w̄ += (w − w̄) / max(1, share · t), from the weights after every step."""
    (tmp_path / "run").mkdir()
    run_ = start(tmp_path / "run", CORPUS, SPLIT, plan(average=0.3, max_steps=12), CPU)
    mean, raw, seen = {}, {}, []

    def look() -> bool:
        seen.append(1)
        for name, parameter in run_.model.named_parameters():
            raw[name] = parameter.detach().clone()
            before = mean.get(name, raw[name])
            mean[name] = before + (raw[name] - before) / max(1.0, 0.3 * len(seen))
        return False

    run_.train(should_stop=look)
    kept, _ = read_tensors(tmp_path / "run" / "last.safetensors")
    assert len(seen) == 12
    assert all(torch.allclose(kept[name], mean[name], atol=1e-6) for name in mean)
    assert not any(torch.allclose(kept[name], raw[name], atol=1e-5) for name in mean)
    state, _ = read_tensors(tmp_path / "run" / "state-12.safetensors")
    assert all(torch.equal(state[f"weights/{name}"], raw[name]) for name in raw)


def test_it_learns_and_keeps_what_it_says(tmp_path: Path) -> None:
    assert run(tmp_path / "run", []) == "finished"
    rows = metrics(tmp_path / "run")
    assert rows[-1]["step"] == 60
    assert rows[-1]["valid_nats"] < rows[0]["valid_nats"] < 4
    assert not list((tmp_path / "run").glob("*.tmp"))
    assert len(list((tmp_path / "run").glob("state-*.safetensors"))) == 2


@pytest.mark.slow
def test_a_damaged_state_is_passed_over_for_the_one_before(tmp_path: Path) -> None:
    run(tmp_path / "whole", [])
    directory = tmp_path / "run"
    directory.mkdir()
    start(directory, CORPUS, SPLIT, plan(), CPU).train(should_stop=Stop(31))
    newest, _ = sorted(directory.glob("state-*"), key=lambda p: -int(p.stem.split("-")[1]))
    newest.write_bytes(newest.read_bytes()[:-100])
    resume(directory, CORPUS, CPU).train()
    a, _ = read_tensors(tmp_path / "whole" / "last.safetensors")
    b, _ = read_tensors(directory / "last.safetensors")
    assert all(torch.equal(a[key], b[key]) for key in a)
    assert metrics(tmp_path / "whole") == metrics(directory)
    for state in directory.glob("state-*"):
        state.write_bytes(b"")
    with pytest.raises(CheckpointError, match="no whole saved state"):
        resume(directory, CORPUS, CPU)


@pytest.mark.slow
def test_another_text_is_refused_and_a_new_budget_recorded(tmp_path: Path) -> None:
    run(tmp_path / "run", [])
    with pytest.raises(CheckpointError, match="text has changed"):
        resume(tmp_path / "run", corpus_of_text(TEXT + "x"), CPU)
    longer = resume(tmp_path / "run", CORPUS, CPU, budget={"max_steps": 80})
    assert longer.train() == "finished"
    assert metrics(tmp_path / "run")[-1]["step"] == 80
    assert load(tmp_path / "run").description["training"]["optimisation"]["max_steps"] == 80


@pytest.mark.slow
def test_minutes_become_steps_and_the_run_ends_in_time(tmp_path: Path) -> None:
    directory = tmp_path / "run"
    directory.mkdir()
    made = start(directory, CORPUS, SPLIT, plan(max_steps=None, minutes=0.05), CPU)
    made.train()
    last = json.loads((directory / "metrics.jsonl").read_text().splitlines()[-1])
    assert 0.5 < last["seconds"] < 6


@pytest.mark.slow
def test_early_stopping(tmp_path: Path) -> None:
    directory = tmp_path / "run"
    directory.mkdir()
    options = plan(lr=1e-9, max_steps=400)
    made = start(directory, CORPUS, SPLIT, Plan(**{**vars(options), "optimisation": _patient(options)}), CPU)
    assert made.train() == "no improvement"


def _patient(options: Plan) -> Optimisation:
    return Optimisation(**{**vars(options.optimisation), "patience": 2, "lr": 0.5, "validations": 100, "warmup": 0})


class Nonsense(Observer):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def on_note(self, message: str) -> None:
        self.notes.append(message)


@pytest.mark.slow
def test_steps_without_a_finite_gradient_are_skipped_then_rolled_back(tmp_path: Path) -> None:
    directory = tmp_path / "run"
    directory.mkdir()
    made = start(directory, CORPUS, SPLIT, plan(max_steps=200), CPU)

    class Poison(Nonsense):
        def on_step(self, report: StepReport) -> None:
            if report.progress.step == 50:
                next(made.model.parameters()).data.fill_(float("nan"))

    watch = Poison()
    result = made.train(observer=watch)
    assert result == "finished"
    assert any("half the learning rate" in note for note in watch.notes)
    last = metrics(directory)[-1]
    assert last["skipped"] == 20
    assert last["valid_nats"] is not None


def test_plans_keep_what_is_given_and_come_back(tmp_path: Path) -> None:
    chosen = plan("lstm", embedding=4)
    assert chosen.network.model == "lstm"
    assert chosen.network.embedding == 4
    assert chosen.optimisation.max_steps == 60
    assert chosen.optimisation.minutes is None
    assert decode(Plan, json.loads(json.dumps(encode(chosen)))) == chosen
    assert choose(10**6, CPU, {}).optimisation.minutes is not None
    for wrong in (
        {"hidden": 0},
        {"layers": -1},
        {"dropout": 1.0},
        {"lanes": 0},
        {"lr": 0.0},
        {"max_steps": 0},
    ):
        with pytest.raises(OptionError):
            plan(**wrong)
    with pytest.raises(CharlmError, match="not whole"):
        decode(Plan, {"network": {}})


def test_defaults_follow_the_text_the_time_and_what_is_given() -> None:
    def chosen(characters: int, **given: Any) -> Plan:
        return choose(characters, CPU, given)

    brief, usual, long = (chosen(10**6, minutes=minutes) for minutes in (0.4, 5.0, 40.0))
    assert all(plan.optimisation.hold == 0.5 and plan.optimisation.lr_final == 0.0 for plan in (brief, usual))
    assert (long.network.hidden, long.optimisation.hold, long.optimisation.symbol_rate) == (320, None, 1.0)
    assert chosen(10**6, layers=3, hidden=256).optimisation.hold == 0.5
    assert usual.optimisation.symbol_rate > 1.0
    assert chosen(10**6, embedding=32).optimisation.symbol_rate == 1.0  # measured with one-hot input
    assert choose(10**6, torch.device("cuda"), {}).optimisation.hold is None  # not measured there
    minute = chosen(10**6, minutes=1.0)
    assert brief.network.layers == minute.network.layers < usual.network.layers == long.network.layers
    assert brief.network.hidden < minute.network.hidden < usual.network.hidden < long.network.hidden
    assert [plan.network.model for plan in (brief, minute, usual, long)] == ["gru", "gru", "lstm", "lstm"]
    plain = [chosen(10**6, minutes=minutes, look_back=0) for minutes in (0.4, 1.0, 5.0, 40.0)]
    assert {plan.network.model for plan in plain} == {chosen(10**8, minutes=5.0).network.model} == {"gru"}
    assert [plan.network.layers for plan in plain] == [1, 2, 2, 3]
    assert plain[0].window < plain[1].window == usual.window
    assert brief.network.dropout <= usual.network.dropout <= long.network.dropout  # fewer threads read fewer times
    assert brief.network.dropout < long.network.dropout
    assert chosen(10**8).network.dropout == 0.0  # read a fraction of it
    assert chosen(10**5).network.dropout > chosen(10**6).network.dropout
    assert chosen(10**8, epochs=30.0).network.dropout > 0
    assert chosen(10**6, max_steps=100).network.dropout == 0.0
    assert chosen(10**6, hidden=512).optimisation.lr < chosen(10**6, hidden=64).optimisation.lr
    assert chosen(10**5).optimisation.epochs == DEFAULT_EPOCHS  # or sooner than the minutes
    assert chosen(10**5, minutes=4.0).optimisation.epochs is None
    assert chosen(10**6, model="rnn").optimisation.lr < usual.optimisation.lr
    often = [chosen(200_000, epochs=24.0, **given).network for given in ({}, {"look_back": 0}, {"weight_dropout": 0.0})]
    assert [network.weight_dropout for network in often] == [0.2, 0.0, 0.0]
    assert often[0].dropout < often[1].dropout  # the recurrent weights' dropout does a part of it
    assert usual.network.weight_dropout == chosen(10**6, max_steps=100).network.weight_dropout == 0.0
    rates = [(plan.optimisation.head_rate, plan.optimisation.look_back_rate) for plan in (usual, plain[2], long)]
    assert rates == [(2.0, 0.5), (1.0, 1.0), (1.0, 1.0)]
    deep = chosen(150_000, layers=3, hidden=100, dropout=0.05, lanes=3, lr=0.1)
    assert (deep.network.model, chosen(150_000, layers=3, model="gru").network.model) == ("lstm", "gru")
    shapes = [chosen(150_000, layers=3, **given) for given in ({}, {"model": "gru"}, {"look_back": 0}, {"window": 32})]
    assert [(plan.lanes, plan.window) for plan in shapes] == [(8, 128), (16, 64), (16, 64), (8, 32)]
    assert (deep.network.layers, deep.network.hidden, deep.network.dropout) == (3, 100, 0.05)
    assert (deep.lanes, deep.optimisation.lr) == (3, 0.1)


@pytest.mark.parametrize("there", [False, True])
def test_products_of_bfloat16_are_a_default_where_they_are_there(there: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "multiplies_bf16", lambda: there)

    def precision(**given: Any) -> str:
        return choose(10**6, CPU, given).precision

    assert precision() == precision(precision="auto") == precision(backend="fused") == ("bf16" if there else "auto")
    assert precision(precision="fp32") == "fp32"
    assert precision(hidden=64) == precision(backend="torch") == precision(backend="auto") == "auto"
    assert choose(10**6, torch.device("cuda"), {}).precision == "auto"
    if not there:
        with pytest.raises(OptionError, match="choose --precision fp32"):
            precision(precision="bf16")


def test_devices() -> None:
    assert pick_device("cpu").type == "cpu"
    assert pick_device("auto").type in ("cpu", "cuda")
    with pytest.raises(OptionError, match="unknown device"):
        pick_device("abacus")
    if not torch.cuda.is_available():
        with pytest.raises(OptionError, match="no device"):
            pick_device("cuda")


def test_options_are_checked() -> None:
    with pytest.raises(OptionError, match="needs an end"):
        Optimisation()
    with pytest.raises(OptionError, match="max-steps"):
        Optimisation(max_steps=0)


@pytest.mark.parametrize(
    "nasty", ["1e999", *(pytest.param(more, marks=pytest.mark.slow) for more in ("NaN", "-Infinity"))]
)
def test_a_state_with_numbers_that_json_has_no_word_for_is_not_whole(tmp_path: Path, nasty: str) -> None:
    """Resuming would write them again, which strict JSON refuses."""
    run(tmp_path / "run", [7])
    newest = max((tmp_path / "run").glob("state-*.safetensors"), key=lambda path: int(path.stem[6:]))
    tensors, metadata = read_tensors(newest)
    changed = metadata["rows"].replace('"seconds": ', f'"more": {nasty}, "seconds": ', 1)
    assert changed != metadata["rows"]
    write_tensors(newest, tensors, {**metadata, "rows": changed})
    assert resume(tmp_path / "run", CORPUS, CPU).train() == "finished"
    assert nasty not in (tmp_path / "run" / "metrics.jsonl").read_text()


def test_writing_a_state_counts_as_validating(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    took: list[float] = []
    write = DirectoryKeeper.state

    def slowly(keeper: DirectoryKeeper, tensors: Mapping[str, torch.Tensor], progress: dict[str, Any]) -> None:
        time.sleep(0.2)
        write(keeper, tensors, progress)

    monkeypatch.setattr(DirectoryKeeper, "state", slowly)
    monkeypatch.setattr(Budget, "add_validation", lambda self, seconds: took.append(seconds))
    text = Text.of("the quick brown fox. " * 40)
    train(text, hidden=4, max_steps=2, out=tmp_path / "run", progress=False)
    assert took
    assert min(took) >= 0.2
