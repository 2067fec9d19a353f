"""`charlm.train`: one model in memory and in a directory, ready to use; the command prints what it returns."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tqdm import tqdm

import charlm
from charlm.errors import CheckpointError, OptionError
from charlm.lm.evaluate import evaluate
from charlm.nn.kernels import compiled, for_reading
from charlm.recurrent.model import CharRNN, RNNConfig
from charlm.tensors import read_tensors
from charlm.training.interfaces import Observer, StepReport, ValidationReport
from charlm.training.options import LoopState
from charlm.training.watching import _BAR, History, language_step, read_metrics
from tests.conftest import Run

TEXT = charlm.Text.of("the quick brown fox jumps over the lazy dog. the lazy dog sleeps; the fox jumps.\n" * 30)
SMALL: dict[str, Any] = {
    "model": "gru", "layers": 1, "hidden": 10, "dropout": 0.3, "batch_size": 4, "seq_length": 12, "lr": 0.02,
    "max_steps": 30, "average": 0.1, "device": "cpu",
}  # fmt: skip


def weights(model: CharRNN) -> dict[str, torch.Tensor]:
    return {name: parameter.detach() for name, parameter in model.named_parameters()}


def same(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> bool:
    return set(one) == set(two) and all(torch.equal(one[name], two[name]) for name in one)


def rows(history: Any) -> list[dict[str, Any]]:
    return [{name: value for name, value in row.items() if name != "seconds"} for row in history]


class Telling(Observer):
    """Keeps the weights that each validation saw."""

    def __init__(self) -> None:
        self.model: Any = None
        self.seen: list[tuple[float, dict[str, torch.Tensor]]] = []
        self.notes: list[str] = []

    def on_begin(self, model: torch.nn.Module, resumed: bool) -> None:
        self.model = model

    def on_validation(self, report: ValidationReport) -> None:
        self.seen.append((report.valid, {name: t.clone() for name, t in weights(self.model).items()}))

    def on_note(self, message: str) -> None:
        self.notes.append(message)


def test_in_memory_it_is_what_it_is_in_a_directory(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    before = list(tmp_path.iterdir())
    memory = charlm.train(TEXT, **SMALL)
    assert list(tmp_path.iterdir()) == before
    disk = charlm.train(TEXT, **SMALL, out=tmp_path / "run")
    assert capfd.readouterr() == ("", "")
    assert same(weights(memory), weights(disk))
    assert same(weights(memory), read_tensors(tmp_path / "run" / "best.safetensors")[0])
    assert rows(memory.history) == rows(disk.history) == rows(read_metrics(tmp_path / "run" / "metrics.jsonl"))
    assert memory.trained.evaluation == disk.trained.evaluation
    assert (memory.directory, memory.trained.directory) == (None, None)
    assert disk.directory == disk.trained.directory == tmp_path / "run"
    assert not (tmp_path / "run" / "LOCK").exists()
    assert charlm.train(TEXT, **SMALL, out=tmp_path / "run").directory == tmp_path / "run-2"


def test_the_best_weights_come_back_ready_for_reading() -> None:
    watch = Telling()
    model = charlm.train(TEXT, **{**SMALL, "lr": 0.5, "average": 0.0, "max_steps": 60, "patience": 0}, observer=watch)
    lowest, best = min(watch.seen, key=lambda pair: pair[0])
    assert lowest < watch.seen[-1][0]  # it got worse again, so that best and last differ
    assert same(weights(model), best)
    assert not model.training
    assert model.stack.backend == for_reading(model.device)
    assert model.history.best is not None
    assert model.history.best["valid_nats"] == lowest
    found = model.trained.evaluation
    assert found is not None
    assert found.nats == evaluate(model, TEXT.corpus.ids, TEXT.test.spans).nats
    assert (found.part, model.trained.part, model.trained.outcome) == ("test", "test", "finished")
    assert model.source.sha256 == TEXT.corpus.sha256


@pytest.mark.parametrize("seconds", [float("nan"), -1, "5"])
def test_the_seconds_between_two_states_are_a_number(tmp_path: Path, seconds: Any) -> None:
    out = tmp_path / "run"
    with pytest.raises(OptionError, match="--save-every is a number of seconds"):
        charlm.train(TEXT, **SMALL, out=out, save_every=seconds)
    with pytest.raises(OptionError, match="--save-every is a number of seconds"):
        charlm.fit_table("missing.csv", out=out, save_every=seconds)
    assert not out.exists()


def test_a_run_is_resumed_to_the_bit_and_keeps_its_options(tmp_path: Path) -> None:
    whole = charlm.train(TEXT, **SMALL)
    out = tmp_path / "run"
    charlm.train(TEXT, **{**SMALL, "max_steps": 30}, out=out, observer=Interrupting(11))
    assert same(weights(charlm.train(TEXT, **SMALL, resume=out, out=out)), weights(whole))
    again = charlm.train(TEXT, resume=out, max_steps=10, observer=(watch := Telling()))
    assert any("there is nothing to do: the run is at step 30" in note for note in watch.notes)
    assert same(weights(again), weights(whole))
    for name, value, has in (("hidden", 11, 10), ("seed", 4, 0), ("backend", "reference", ""), ("seq_length", 5, 12)):
        with pytest.raises(OptionError, match=f"--{name.replace('_', '-')} cannot be changed.* has {has}.*not {value}"):
            charlm.train(TEXT, resume=out, **{name: value})
    with pytest.raises(OptionError, match=r"--split .* has tail:80/10/10, not tail:90/5/5"):
        charlm.train(charlm.Text(corpus=TEXT.corpus, split=charlm.Split.parse("90/5/5")), resume=out)
    with pytest.raises(CheckpointError, match="text has changed"):
        charlm.train(charlm.Text.of(str(TEXT) + "!"), resume=out)


def test_other_kernels_are_noted_and_the_same_ones_go_on_to_the_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if len(compiled.libraries()) < 2:
        pytest.skip("this machine runs one target of the kernels alone")
    whole = charlm.train(TEXT, **SMALL)
    for name, library in zip(("same", "other"), compiled.libraries(), strict=False):
        charlm.train(TEXT, **{**SMALL, "max_steps": 30}, out=tmp_path / name, observer=Interrupting(11))
        monkeypatch.setattr(compiled, "library", lambda library=library: library)
        again = charlm.train(TEXT, resume=tmp_path / name, observer=(watch := Telling()))
        monkeypatch.undo()
        training = json.loads((tmp_path / name / "config.json").read_text())["training"]
        assert training["kernels"] == library.target
        if name == "same":
            assert same(weights(again), weights(whole))
            assert training["changes"] == []
        else:
            assert training["changes"] == [{"step": 11, "kernels": library.target}]
            assert any(f"trained with {compiled.target()}, here are {library.target}" in said for said in watch.notes)


class Interrupting(Telling):
    """Presses Ctrl-C at a step."""

    def __init__(self, step: int) -> None:
        super().__init__()
        self.step = step

    def on_step(self, report: StepReport) -> None:
        if report.progress.step == self.step:
            import signal

            signal.raise_signal(signal.SIGINT)


def test_ctrl_c_returns_what_there_is() -> None:
    model = charlm.train(TEXT, **SMALL, observer=Interrupting(7))
    assert (model.trained.outcome, model.trained.evaluation) == ("interrupted", None)
    assert len(model.sample(length=5)) == 5


def test_a_new_budget_replaces_the_old_one(tmp_path: Path) -> None:
    """Also that of a run whose minutes are used up before their steps were planned."""
    out = tmp_path / "run"
    given = {**SMALL, "max_steps": None}
    charlm.train(TEXT, **given, minutes=1e-9, out=out)
    model = charlm.train(resume=out, text=TEXT, epochs=0.5)
    budget = model.trained.plan.optimisation
    assert (budget.epochs, budget.minutes, budget.max_steps) == (0.5, None, None)
    assert model.history[-1]["epoch"] == pytest.approx(0.5, abs=0.05)
    used_up = charlm.train(resume=out, text=TEXT, minutes=1e-9, observer=(watch := Telling()))
    assert any("there is nothing to do" in note for note in watch.notes)
    assert len(used_up.history) == len(model.history)


@pytest.mark.parametrize("lr", [1e6, 1e30])
def test_divergence_is_said_and_saved_as_null(tmp_path: Path, lr: float) -> None:
    model = charlm.train(
        TEXT, **{**SMALL, "lr": lr, "max_steps": 5}, out=tmp_path / "run", observer=(watch := Telling())
    )
    assert model.trained.outcome == "diverged"
    assert any("training diverged" in note and "--lr" in note for note in watch.notes)
    kept = json.loads((tmp_path / "run" / "config.json").read_text(), parse_constant=pytest.fail)
    assert kept["result"]["perplexity"] is None
    for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=pytest.fail)
    assert list((tmp_path / "run").glob("state-*"))
    assert "-" in repr(model.history) or len(model.history)


@pytest.mark.skipif(not compiled.multiplies_bf16(), reason="this processor has no AVX512-BF16")
@pytest.mark.parametrize("kind", ["rnn", "gru", "lstm"])
def test_training_in_bfloat16_is_resumed_to_the_bit(tmp_path: Path, kind: str) -> None:
    given = {**SMALL, "model": kind, "layers": 2}
    whole, single = charlm.train(TEXT, **given, precision="bf16"), charlm.train(TEXT, **given)
    assert not same(weights(whole), weights(single))
    assert all(tensor.dtype == torch.float32 for tensor in weights(whole).values())
    best = [model.history.best["valid_nats"] for model in (whole, single)]
    assert abs(best[0] - best[1]) < 0.05
    charlm.train(TEXT, **given, precision="bf16", out=tmp_path / "run", observer=Interrupting(11))
    again = charlm.train(TEXT, resume=tmp_path / "run", precision="auto")
    assert again.trained.plan.precision == "bf16"
    assert same(weights(again), weights(whole))
    part = TEXT.test
    half = whole.with_precision("bf16").evaluate(part)
    assert 0 < abs(half.nats - whole.evaluate(part).nats) < 0.01
    assert whole.with_precision("fp32").evaluate(part) == whole.evaluate(part)
    learning = [charlm.dynamic(model, TEXT).evaluate(part).nats for model in (whole, whole.with_precision("bf16"))]
    assert 0 < abs(learning[0] - learning[1]) < 0.01


def test_a_precision_that_is_not_there_is_refused_and_can_be_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiled, "multiplies_bf16", lambda: True)
    with pytest.raises(OptionError, match="the backend fused alone"):
        charlm.train(TEXT, **SMALL, precision="bf16", backend="torch", out=tmp_path / "run")
    charlm.train(TEXT, **SMALL, backend="torch", out=tmp_path / "other")
    with pytest.raises(OptionError, match="the backend fused alone"):
        charlm.train(TEXT, resume=tmp_path / "other", max_steps=35, precision="bf16")
    monkeypatch.setattr(compiled, "multiplies_bf16", lambda: False)
    with pytest.raises(OptionError, match=r"AVX512-BF16.* choose --precision fp32"):
        charlm.train(TEXT, **SMALL, precision="bf16", out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
    model = charlm.train(TEXT, **SMALL, out=tmp_path / "run")
    with pytest.raises(OptionError, match="AVX512-BF16"):
        model.with_precision("bf16")
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    for path in (tmp_path / "run").glob("state-*/config.json"):  # as if it had been trained where there is bfloat16
        path.write_text(json.dumps({**config, "training": {**config["training"], "precision": "bf16"}}))
    again = charlm.train(TEXT, resume=tmp_path / "run", max_steps=35, precision="fp32")
    assert again.trained.plan.precision == "fp32"
    assert again.history[-1]["step"] == 35
    changes = json.loads((tmp_path / "run" / "config.json").read_text())["training"]["changes"]
    assert {"step": 30, "precision": "fp32"} in changes


def test_the_rule_chooses_the_backend() -> None:
    """The same call gives the same weights: nothing is timed unless it is asked for."""
    one, two = charlm.train(TEXT, **SMALL), charlm.train(TEXT, **SMALL)
    assert same(weights(one), weights(two))
    assert one.trained.plan.backend == two.trained.plan.backend == for_reading(one.device)
    assert charlm.train(TEXT, **{**SMALL, "max_steps": 2}, backend="auto").trained.plan.backend in ("fused", "torch")


def test_the_command_prints_what_the_door_returns(charlm: Run, verse: Path, tmp_path: Path) -> None:
    options = ("--model", "gru", "--hidden", 12, "--max-steps", 20, "--batch-size", 4, "--seq-length", 16)
    code, out, err = charlm("train", verse, *options, "--seed", 3, "--out", "run")
    assert code == 0, err
    import charlm as door

    model = door.train(door.read_text(verse), model="gru", hidden=12, max_steps=20, batch_size=4, seq_length=16, seed=3)
    found = model.trained.evaluation
    assert found is not None
    line = (
        f"test part: {found.nats:.6f} nats a character ± {found.standard_error or 0:.4f}, "
        f"{found.bits_per_char:.4f} bits, perplexity {found.perplexity:.4f}, "
        f"{100 * found.accuracy:.2f} % right of {found.targets:,} (split {found.split})"
    )
    assert out.splitlines() == [line, "run"]
    assert rows(read_metrics(Path("run/metrics.jsonl"))) == rows(model.history)
    assert model.trained.plan.line() in err


def test_the_learning_curve_is_a_table_and_a_picture(tmp_path: Path) -> None:
    row = {"step": 1000, "epoch": 0.5, "train_nats": None, "valid_nats": 2.0, "lr": 0.001, "skipped": 0, "seconds": 9.0}
    history = History([row, {**row, "step": 2000, "valid_nats": 1.5, "train_nats": 1.75}])
    assert repr(history).splitlines()[1].split() == ["1,000", "0.50", "-", "2.0000", "0.001", "9.0"]
    assert history.best is not None
    assert history.best["step"] == 2000
    assert "<td>1.7500</td>" in history._repr_html_()
    figure = history.plot(tmp_path / "curve.svg")
    (axes,) = figure.axes
    assert [list(line.get_ydata()) for line in axes.lines] == [[1.75], [2.0, 1.5]]
    assert "<svg" in (tmp_path / "curve.svg").read_text()


def test_a_window_that_does_not_fit_into_memory_is_refused_before_it_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("charlm.training.recipe.free_memory", lambda: 1_000_000)
    with pytest.raises(OptionError, match=r"64 steps in 16 lanes needs about .* 0\.0 GB are free"):
        charlm.train(TEXT, hidden=512, seq_length=64, batch_size=16, max_steps=1, progress=False)
    charlm.train(TEXT, hidden=8, seq_length=8, batch_size=2, max_steps=1, progress=False)


def test_a_window_longer_than_the_text_is_cut_and_said() -> None:
    watch = Telling()
    charlm.train(TEXT, hidden=4, seq_length=10**6, batch_size=2, max_steps=1, observer=watch)
    assert any("windows are cut to" in note for note in watch.notes)


def test_weights_that_were_trained_before_are_not_compared_with_untrained_ones(tmp_path: Path) -> None:
    text = charlm.Text.of("abcdefghijklmnopqrstuvwxyz" * 60)
    given: dict[str, Any] = {"hidden": 32, "layers": 1, "seq_length": 16, "batch_size": 4, "progress": False}
    model = charlm.train(text, **given, max_steps=150)
    assert model.history[-1]["valid_nats"] < 1.5  # ln 26 is 3.26
    out = tmp_path / "second"
    charlm.train(
        text, init_from=model, seq_length=16, batch_size=4, max_steps=1, out=out, observer=(begun := Telling())
    )
    charlm.train(text, resume=out, max_steps=3, observer=(resumed := Telling()))
    assert not any("untrained" in note for note in (*begun.notes, *resumed.notes))


def test_without_a_validation_part_it_is_said_that_training_is_watched() -> None:
    watch = Telling()
    text = charlm.Text.of(str(TEXT), split="100/0/0")
    charlm.train(text, hidden=4, seq_length=8, batch_size=2, max_steps=1, observer=watch)
    assert any("no validation part" in note for note in watch.notes)


def test_threads_are_those_asked_for_while_it_trains_and_no_longer() -> None:
    seen: list[int] = []

    class Counting(Observer):
        def on_step(self, report: StepReport) -> None:
            seen.append(torch.get_num_threads())

    before = torch.get_num_threads()
    charlm.train(TEXT, hidden=4, seq_length=8, batch_size=2, max_steps=2, threads=before + 1, observer=Counting())
    assert seen == [before + 1] * 2
    assert torch.get_num_threads() == before
    with pytest.raises(OptionError, match="1 to 1024 threads, not 0"):
        charlm.train(TEXT, max_steps=1, threads=0)


def test_the_whole_part_is_measured_at_the_end_where_validations_read_some(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("charlm.training.language_run.validation_limit", lambda characters, plan: 64)
    text, watch = charlm.Text.of(str(TEXT), split="80/20/0"), Telling()
    model = charlm.train(text, **{**SMALL, "max_steps": 2}, observer=watch)
    assert any(f"validations read 64 of {len(text.valid):,} characters" in note for note in watch.notes)
    assert model.trained.evaluation is not None
    assert model.trained.evaluation.targets == len(text.valid)


@pytest.mark.parametrize("columns", [80, 120])
def test_the_bar_of_a_training_fits_a_terminal(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    progress = LoopState(step=123_456, total=1_000_000)
    report = StepReport(progress=progress, loss=1.2345, lr=0.001, targets_per_second=1_234_567.0)
    line = tqdm.format_meter(
        123_456, 1_000_000, 7200.0, ncols=columns, prefix="training", bar_format=_BAR, postfix=language_step(report)
    )
    assert len(line) <= columns
    assert line.endswith("1.2M char/s]" if columns == 80 else "1,234,567 char/s]")
    assert line.rindex("|") - line.index("|") > 3  # so many cells has the bar, even of a million steps in a day


def test_a_run_that_stopped_early_stays_so_until_a_new_budget_comes(tmp_path: Path) -> None:
    text = charlm.Text.of("the quick brown fox jumps over the lazy dog. " * 60)
    shape: dict[str, Any] = {"model": "gru", "hidden": 8, "batch_size": 4, "seq_length": 8, "lr": 0.3, "seed": 1}
    model = charlm.train(text, **shape, max_steps=400, patience=1, out=tmp_path / "run", progress=False)
    last = model.history.rows[-1]["step"]
    assert (model.trained.outcome, last < 400) == ("no improvement", True)
    again = charlm.train(text, resume=tmp_path / "run", progress=False)
    assert (again.trained.outcome, again.history.rows[-1]["step"]) == ("no improvement", last)
    on = charlm.train(text, resume=tmp_path / "run", max_steps=last + 20, progress=False)
    assert on.history.rows[-1]["step"] > last


def test_a_loaded_network_has_the_fastest_backend_for_reading(tmp_path: Path) -> None:
    model = CharRNN(charlm.Text.of("abcd").vocab, RNNConfig(hidden=4))
    model.save(tmp_path / "net")
    loaded = charlm.load(tmp_path / "net", device="cpu")
    assert isinstance(loaded, CharRNN)
    assert loaded.stack.backend == for_reading(torch.device("cpu")) != "reference"


def test_other_work_is_told_to_the_observer(monkeypatch: pytest.MonkeyPatch) -> None:
    class Notes(Observer):
        def on_note(self, message: str) -> None:
            said.append(message)

    said: list[str] = []
    monkeypatch.setattr("charlm.training.train.crowded", lambda threads: f"busy beside {threads}")
    text = charlm.Text.of("abracadabra " * 40)
    charlm.train(text, hidden=4, batch_size=2, seq_length=8, max_steps=2, threads=2, observer=Notes())
    assert "busy beside 2" in said
