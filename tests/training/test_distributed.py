"""Several processes take the steps of one: in threads that talk through Gloo, and as torchrun starts them."""

import contextlib
import datetime
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.distributed import HashStore, ProcessGroupGloo

from benchmarks.kills import curve, newest_step, weights
from charlm import cli as commands
from charlm.cli import make as make_module
from charlm.errors import CharlmError, LostProcessError, OptionError
from charlm.recurrent.model import CharRNN, RNNConfig
from charlm.text.corpus import corpus_of_text
from charlm.training.distributed import ALONE, Group, Processes
from charlm.training.interfaces import Observer, StepReport, ValidationReport
from charlm.training.language import Lanes, LanguageObjective
from charlm.training.loop import Loop
from charlm.training.options import Optimisation
from charlm.training.run import Run
from charlm.training.states import left_by

TEXT = "she sells sea shells by the sea shore; the shells she sells are sea shells, surely, said she.\n" * 5
CORPUS = corpus_of_text(TEXT)


def together(size: int, work: Callable[[Processes], Any], patience: float = 20) -> list[Any]:
    """What so many processes come to, here threads; their first error is raised."""
    store, results, errors = HashStore(), [None] * size, [None] * size

    def one(rank: int) -> None:
        torch.set_num_threads(1)
        options = ProcessGroupGloo._Options()
        options._devices = [ProcessGroupGloo.create_device(hostname="127.0.0.1")]
        options._timeout = datetime.timedelta(seconds=patience)
        try:
            results[rank] = work(Group(ProcessGroupGloo(store, rank, size, options)))
        except BaseException as error:
            errors[rank] = error

    threads = [threading.Thread(target=one, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = [error for error in errors if error is not None]
    if found:  # one that is lost is so because of another
        raise min(found, key=lambda error: isinstance(error, LostProcessError))
    return results


def objective(
    processes: Processes, *, lanes: int = 8, window: int = 5, dropout: float = 0.0, grams: int = 0
) -> LanguageObjective:
    model = CharRNN(CORPUS.vocab, RNNConfig(model="gru", hidden=6, dropout=dropout, grams=grams)).double()
    model.reset_parameters(torch.Generator().manual_seed(3))
    model.stack.backend = "torch"
    cut = Lanes(CORPUS.ids, np.array([[0, 380]]), lanes=lanes, window=window)
    return LanguageObjective(model, cut, CORPUS.ids, np.array([[380, len(TEXT)]]), processes=processes)


class Curve(Observer):
    """Keeps the loss of every step and of every validation."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.valid: list[float] = []

    def on_step(self, report: StepReport) -> None:
        self.losses.append(report.loss)

    def on_validation(self, report: ValidationReport) -> None:
        self.valid.append(report.valid)


def train(processes: Processes, *, steps: int, grams: int = 0, **options: Any) -> tuple[Curve, Loop]:
    seen = Curve()
    plan = Optimisation(lr=0.01, warmup=5, max_steps=steps, validations=4, average=0.3, **options)
    loop = Loop(objective(processes, grams=grams), plan, observer=seen, processes=processes)
    assert loop.run() == "finished"
    return seen, loop


@pytest.mark.parametrize(
    ("size", "steps", "grams"),
    [
        (2, 24, 0),
        (2, 24, 200),
        pytest.param(2, 200, 0, marks=pytest.mark.slow),
        pytest.param(4, 200, 0, marks=pytest.mark.slow),
    ],
)
def test_the_curve_is_that_of_one_process(size: int, steps: int, grams: int) -> None:
    """In double precision, over epochs whose lanes end raggedly."""
    alone, loop = train(ALONE, steps=steps, grams=grams)
    assert loop.progress.position > 2 * loop.objective.steps_per_epoch
    for seen, one in together(size, lambda processes: train(processes, steps=steps, grams=grams)):
        assert len(seen.losses) == steps
        assert np.abs(np.array(seen.losses) - alone.losses).max() < 1e-5
        assert seen.valid == pytest.approx(alone.valid, rel=1e-6)
        assert one.progress.targets == loop.progress.targets
        for name, tensor in loop.weights().items():
            assert (one.weights()[name] - tensor).abs().max() < 1e-5


def test_the_gradient_is_that_of_the_mean_over_all_targets() -> None:
    """Also where a process has no target: of 4 lanes of 94 or 95 pairs the last alone reaches window 94."""

    def gradient(processes: Processes) -> tuple[torch.Tensor, float, int]:
        task = objective(processes, lanes=4, window=94)
        assert task.steps_per_epoch == 2
        task.loss(0)
        loss, count = task.loss(1)
        loss.backward()
        parameters = list(task.model.parameters())
        heard = processes.step(parameters, loss, count, stop=False, seconds=1.0)
        assert heard.seconds == 1.0
        return torch.cat([p.grad.reshape(-1) for p in parameters]), heard.loss, heard.count

    expected, loss, count = gradient(ALONE)
    assert 0 < count < 4
    for found in together(2, gradient):
        assert (found[0] - expected).abs().max() < 1e-14
        assert found[1:] == pytest.approx((loss, count), rel=1e-12)


def test_validation_is_shared_and_exact() -> None:
    expected = objective(ALONE).validate()
    values = together(2, lambda processes: objective(processes).validate())
    assert values == [pytest.approx(expected, rel=1e-12)] * 2
    assert values[0] == values[1]


def test_one_that_is_asked_to_stop_stops_all_at_one_step() -> None:
    def run(processes: Processes) -> tuple[str, int]:
        asked = iter(range(10**6))
        loop = Loop(
            objective(processes),
            Optimisation(max_steps=50),
            processes=processes,
            should_stop=lambda: processes.rank == 1 and next(asked) >= 6,
        )
        return loop.run(), loop.progress.step

    assert together(2, run) == [("interrupted", 8)] * 2  # asked after step 7, told in step 8


def test_minutes_become_the_same_steps_everywhere() -> None:
    def run(processes: Processes) -> tuple[int | None, int | None, int, int]:
        class Slow(Observer):
            def on_step(self, report: StepReport) -> None:
                time.sleep(0.003 * processes.rank)

        plan = Optimisation(minutes=0.01, warmup=8)
        loop = Loop(objective(processes), plan, processes=processes, observer=Slow())
        loop.run()
        return loop.progress.total, loop.progress.every, loop.progress.step, loop.progress.since_best

    first, second = together(2, run)
    assert first == second
    assert first[2] > 5


def test_what_is_carried_belongs_to_lanes_and_ranks() -> None:
    """Hidden states by the lane's number among all; a mask of its own for every process; other numbers take both."""

    def carry(processes: Processes) -> dict[str, torch.Tensor]:
        task = objective(processes)
        for position in range(3):
            task.loss(position)
        return task.carried()

    expected = carry(ALONE)
    found = together(2, carry)[0]
    assert found["state/h0"].shape == (8, 6)
    assert (found["state/h0"] - expected["state/h0"]).abs().max() < 1e-14
    assert torch.equal(found["dropout"], expected["dropout"])
    assert not torch.equal(found["dropout"], found["dropout/1"])

    def go_on(processes: Processes) -> float:
        task = objective(processes)
        task.restore(found)
        loss, count = task.loss(3)
        loss.backward()
        return processes.step(task.model.parameters(), loss, count, stop=False, seconds=0).loss

    assert together(4, go_on) == [pytest.approx(go_on(ALONE), rel=1e-12)] * 4


def test_masks_differ_by_process_and_weights_do_not() -> None:
    def first(processes: Processes) -> tuple[float, torch.Tensor]:
        task = objective(processes, dropout=0.5)
        task.model.train()
        with torch.no_grad():
            table = task.model.head.linear.weight.clone()
            draws = torch.empty(64).bernoulli_(0.5, generator=task.generator)
        return float(draws @ torch.arange(64.0)), table

    one, two = together(2, first)
    assert one[0] != two[0]
    assert torch.equal(one[1], two[1])


def test_what_fails_in_one_fails_in_all() -> None:
    def work(processes: Processes) -> tuple[str, str, Any]:
        said = ""
        try:
            with processes.alike():
                if processes.rank == 1:
                    raise OptionError("no such thing")
        except CharlmError as error:
            said = str(error)
        with pytest.raises(CharlmError, match="they differ"):
            processes.same(f"{processes.rank}", "they differ")
        processes.same("x", "they differ")
        return said, processes.agree(f"from {processes.rank} é"), processes.add([0.5, processes.rank])

    assert together(3, work) == [
        ("process 1: no such thing", "from 0 é", [1.5, 3.0]),
        ("no such thing", "from 0 é", [1.5, 3.0]),
        ("process 1: no such thing", "from 0 é", [1.5, 3.0]),
    ]


def test_a_process_that_is_gone_becomes_a_sentence() -> None:
    def work(processes: Processes) -> None:
        processes.add([1.0])
        if processes.first:
            processes.add([1.0])

    with pytest.raises(LostProcessError, match="has ended"):
        together(2, work, patience=0.5)


def test_a_loss_is_said_though_torchrun_ends_the_others_meanwhile(
    tmp_path: Path, verse: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGTERM that comes while the sentence is on its way does not cut it off."""
    said, cut_off = [], []

    def train(run: Run, **others: object) -> None:
        raise LostProcessError("another process has ended")

    def echo(message: str, err: bool = False) -> None:
        if message.startswith("charlm: "):
            signal.raise_signal(signal.SIGTERM)
        said.append(message)

    monkeypatch.setattr(Run, "train", train)
    monkeypatch.setattr(make_module.click, "echo", echo)
    before = signal.signal(signal.SIGTERM, lambda number, frame: cut_off.append(len(said)))
    try:
        arguments = ["train", str(verse), "--hidden", "4", "--device", "cpu", "--out", str(tmp_path / "run")]
        assert commands.cli.main(arguments, standalone_mode=False) == 1
    finally:
        signal.signal(signal.SIGTERM, before)
    assert said[-1] == "charlm: another process has ended"
    assert not cut_off


def test_lanes_are_shared_equally_or_refused() -> None:
    def own(processes: Processes) -> slice:
        with pytest.raises(OptionError, match="multiple of 2"):
            processes.own(5)
        return processes.own(6)

    assert together(2, own) == [slice(0, 3), slice(3, 6)]


def test_the_first_process_speaks_and_other_commands_are_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in {"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "2", "RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    for arguments, said in (
        (["info", "x"], "call charlm info without torchrun"),
        (["train", "--hidden", "x"], "--hidden"),
    ):
        monkeypatch.setattr(sys, "argv", ["charlm", *arguments])
        for rank in ("0", "1"):
            monkeypatch.setenv("RANK", rank)
            assert commands._run() == 2
            captured = capsys.readouterr()
            assert (said in captured.err) == (rank == "0")
            assert bool(captured.err) == (rank == "0")


def test_a_restart_knows_its_own_run(tmp_path: Path) -> None:
    """By what started it; runs of others, and directories that are no runs, are left alone."""
    for name, launch in (("run", ["a/host/1"]), ("run-2", ["b/host/2", "b/other/3"]), ("run-3", ["c/host/4"])):
        (tmp_path / name).mkdir()
        config = {"format": 1, "kind": "rnn", "model": {}, "text": {}, "training": {"launch": launch}}
        (tmp_path / name / "config.json").write_text(json.dumps(config))
    (tmp_path / "run-4").mkdir()
    assert left_by(tmp_path / "run", ["b/other/3", "b/new/9"]) == tmp_path / "run-2"
    assert left_by(tmp_path / "run", ["d/host/1"]) is None
    assert left_by(tmp_path / "else", ["a/host/1"]) is None
    assert left_by(Path(), ["a/host/1"]) is None


# -- as torchrun starts them ------------------------------------------------------------------------------------------

STEPS = 120
OPTIONS = (
    "--hidden", 12, "--dropout", 0.4, "--average", 0.1, "--batch-size", 4, "--seq-length", 20, "--seed", 7,
    "--device", "cpu", "--backend", "torch",
)  # fmt: skip


def torchrun(*arguments: object, processes: int = 2, restarts: int = 0) -> subprocess.Popen[str]:
    """`charlm train` in several processes that talk through the loopback device alone."""
    launcher = ["--standalone", "--local-addr", "127.0.0.1", "--max-restarts", restarts, "--nproc-per-node", processes]
    command = [sys.executable, "-m", "torch.distributed.run", *launcher, "-m", "charlm", "train", *arguments]
    environment = {**os.environ, "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1", "TORCH_CPP_LOG_LEVEL": "ERROR"}
    return subprocess.Popen(
        [str(part) for part in command],
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def ended(process: subprocess.Popen[str]) -> tuple[str, str]:
    try:
        return process.communicate(timeout=600)
    except subprocess.TimeoutExpired:
        process.terminate()  # which torchrun hands on
        return process.communicate()


def workers(process: subprocess.Popen[str]) -> list[int]:
    return [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]


def kill_one(process: subprocess.Popen[str], directory: Path, seed: int) -> int:
    """Kills a process at a random moment after the first state was saved; says which."""
    chance = random.Random(seed)
    goal = chance.randint(1, STEPS // 3)
    while newest_step(directory) < goal:
        assert process.poll() is None, ended(process)
        time.sleep(0.005)
    time.sleep(chance.random() * 0.05)
    rank = chance.randint(0, 1)
    os.kill(workers(process)[rank], signal.SIGKILL)
    return rank


linux = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds torchrun's processes in /proc")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A directory with a text and a whole run of two processes."""
    root = tmp_path_factory.mktemp("torchrun")
    verse = Path(__file__).parents[2] / "data" / "shakespeare.txt"
    (root / "verse.txt").write_text(verse.read_text()[:6000])
    process = torchrun(root / "verse.txt", *OPTIONS, "--max-steps", STEPS, "--save-every", 0.5, "--out", root / "whole")
    out, err = ended(process)
    assert process.returncode == 0, err
    assert out.count("test part") == 1
    assert err.count(f"step {STEPS}/{STEPS}") == 1
    yield root
    shutil.rmtree(root)


def same_end(one: Path, other: Path) -> bool:
    return weights(one) == weights(other) and curve(one) == curve(other)


@linux
@pytest.mark.slow
def test_a_killed_process_ends_the_others_and_the_run_goes_on_to_the_bit(undisturbed: Path) -> None:
    directory = undisturbed / "killed"
    process = torchrun(
        undisturbed / "verse.txt", *OPTIONS, "--max-steps", STEPS, "--save-every", 0.5, "--out", directory
    )
    kill_one(process, directory, seed=1)
    _, err = ended(process)
    assert process.returncode != 0
    assert f"-m charlm train --resume {directory}" in err
    assert "Traceback" not in err.split("charlm: ")[1].split("\n")[0]
    assert not (directory / "LOCK").exists() or newest_step(directory) < STEPS
    process = torchrun("--resume", directory, "--save-every", 0.5)
    _, err = ended(process)
    assert process.returncode == 0, err
    assert same_end(directory, undisturbed / "whole")


@linux
@pytest.mark.slow
def test_an_elastic_restart_goes_on_in_the_same_directory(undisturbed: Path) -> None:
    (undisturbed / "elastic").mkdir()  # taken by something else
    directory = undisturbed / "elastic-2"
    arguments = (undisturbed / "verse.txt", *OPTIONS, "--max-steps", STEPS, "--save-every", 0.5)
    process = torchrun(*arguments, "--out", undisturbed / "elastic", restarts=1)
    kill_one(process, directory, seed=2)
    _, err = ended(process)
    assert process.returncode == 0, err
    assert "was begun before this restart" in err
    assert same_end(directory, undisturbed / "whole")
    assert not (undisturbed / "elastic-3").exists()


@linux
@pytest.mark.slow
def test_sigterm_saves_and_another_number_of_processes_goes_on(undisturbed: Path) -> None:
    directory = undisturbed / "stopped"
    process = torchrun(
        undisturbed / "verse.txt", *OPTIONS, "--max-steps", 10**6, "--save-every", 0.5, "--out", directory
    )
    while not newest_step(directory):
        assert process.poll() is None, ended(process)
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    _, err = ended(process)
    assert err.count("everything is saved") == 1, err
    assert not (directory / "LOCK").exists()
    step = newest_step(directory)
    assert step > 0
    command = [sys.executable, "-m", "charlm", "train", "--resume", directory, "--max-steps", step + 20]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=True)
    assert "in another number of processes" in done.stderr
    config = json.loads((directory / "config.json").read_text())
    assert config["training"]["changes"] == [{"step": step, "processes": 1}]
    assert newest_step(directory) == step + 20


@pytest.mark.slow
def test_the_command_line_gives_the_curve_of_one_process(tmp_path: Path, verse: Path) -> None:
    """In single precision, without dropout."""
    options = [verse, *OPTIONS, "--dropout", 0, "--lr", 0.02, "--max-steps", 60, "--patience", 0]
    process = torchrun(*options, "--out", tmp_path / "two")
    single = [sys.executable, "-m", "charlm", "train", *options, "--out", tmp_path / "one"]
    alone = subprocess.run([str(part) for part in single], capture_output=True, text=True, check=True)
    out, err = ended(process)
    assert process.returncode == 0, err
    one, two = curve(tmp_path / "one"), curve(tmp_path / "two")
    for name in ("train_nats", "valid_nats"):
        assert [row[name] for row in two] == pytest.approx([row[name] for row in one], abs=1e-4)
    assert one[-1]["valid_nats"] < one[0]["valid_nats"] - 0.3
    found = [float(text.split("part: ")[1].split(" nats")[0]) for text in (out, alone.stdout)]
    assert found[0] == pytest.approx(found[1], abs=1e-4)


@pytest.mark.slow
def test_a_wrong_option_is_said_once(tmp_path: Path, verse: Path) -> None:
    process = torchrun(verse, *OPTIONS, "--batch-size", 5, "--max-steps", 9, "--out", tmp_path / "x")
    _, err = ended(process)
    assert err.count("charlm: 5 lanes cannot be shared equally by 2 processes") == 1, err
    assert "exitcode  : 2" in err
    with contextlib.suppress(FileNotFoundError):
        assert not list((tmp_path / "x").glob("state-*"))
