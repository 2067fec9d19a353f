"""Faults of the world: full disks, cut files, other devices, too little memory, odd terminals and locales."""

import errno
import json
import os
import pty
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import charlm.cli
from charlm.checkpoint import TextFacts, load
from charlm.errors import CharlmError, CheckpointError, StorageError
from charlm.recurrent.model import CharRNN, RNNConfig
from charlm.tensors import read_tensors, write_tensors
from charlm.text.corpus import corpus_of_text
from charlm.text.splits import Split
from charlm.training.language import Lanes
from charlm.training.recipe import Plan, choose
from tests.helpers import keep
from tests.training.runs import resume, start

TEXT = "a rose is a rose is a rose; so said the crow, and the crow knows.\n" * 5
CORPUS = corpus_of_text(TEXT)
SPLIT = Split.parse("80/10/10")
CPU = torch.device("cpu")
Stop = Callable[[], bool]

pytestmark = pytest.mark.slow


def plan(**options: Any) -> Plan:
    given = {"model": "gru", "hidden": 5, "layers": 1, "dropout": 0.3, "lanes": 3, "window": 8, "lr": 0.02, "seed": 1}
    made = choose(len(CORPUS), CPU, {**given, "max_steps": 9, "backend": "reference", **options})
    return Plan(
        **{**vars(made), "optimisation": type(made.optimisation)(**{**vars(made.optimisation), "validations": 3})}
    )


def after(questions: int) -> Stop:
    """Asks to stop at the so-many-th question."""
    left = iter([False] * questions)
    return lambda: next(left, True)


def begin(directory: Path, stop: Stop = lambda: False, **options: Any) -> Path:
    directory.mkdir(exist_ok=True)
    start(directory, CORPUS, SPLIT, plan(**options), CPU).train(should_stop=stop)
    return directory


def end(directory: Path) -> tuple[dict[str, bytes], list[dict[str, Any]]]:
    """The bytes of the weights, and the learning curve without its seconds."""
    files = {name: (directory / f"{name}.safetensors").read_bytes() for name in ("best", "last")}
    rows = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    return files, [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


class Disk:
    """Counts what is done to files, and fails at one of the calls with half of it done."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, number: int = errno.ENOSPC) -> None:
        self.count, self.fail_at, self.number = 0, -1, number
        for owner, name in ((os, "fsync"), (os, "replace"), (os, "chmod"), (os, "unlink"), (tempfile, "mkstemp")):
            monkeypatch.setattr(owner, name, self._failing(getattr(owner, name), once=name != "unlink"))
        fdopen = os.fdopen
        monkeypatch.setattr(os, "fdopen", lambda *arguments: _File(fdopen(*arguments), self))

    def _failing(self, call: Callable[..., Any], *, once: bool) -> Callable[..., Any]:
        def wrapped(*arguments: Any, **named: Any) -> Any:
            if once:
                self.tick()
            return call(*arguments, **named)

        return wrapped

    def tick(self) -> None:
        self.count += 1
        if self.count == self.fail_at:
            raise OSError(self.number, os.strerror(self.number))


class _File:
    """A file whose writes may fail half way."""

    def __init__(self, file: Any, disk: Disk) -> None:
        self._file, self._disk = file, disk

    def write(self, content: Any) -> int:
        try:
            self._disk.tick()
        except OSError:
            self._file.write(bytes(content)[: len(content) // 2])
            raise
        return int(self._file.write(content))

    def __enter__(self) -> "_File":
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing happened to."""
    torch.set_num_threads(1)
    return begin(tmp_path_factory.mktemp("whole") / "run")


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run, interrupted after five of its nine steps, with two states."""
    torch.set_num_threads(1)
    return begin(tmp_path_factory.mktemp("half") / "run", after(4))


def unharmed(directory: Path, before: set[str]) -> None:
    """No temporary file, and every file that there was is there and whole."""
    names = {path.name for path in directory.iterdir()}
    assert not [name for name in names if name.endswith(".tmp")]
    assert {name for name in before if not name.startswith("state-")} <= names
    for path in directory.glob("*.safetensors"):
        read_tensors(path)
    json.loads((directory / "config.json").read_text())
    if "metrics.jsonl" in names:
        assert all(json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines())


EVERY = [pytest.param(1, marks=pytest.mark.slow), 6]
"""All places of a fault, or every sixth."""


@pytest.mark.parametrize("every", EVERY)
def test_a_disk_that_fills_at_any_write_of_a_resumed_run(
    every: int, tmp_path: Path, whole: Path, half: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk(monkeypatch)
    at, failures = 1 - every, 0
    while True:
        at += every
        directory = Path(shutil.copytree(half, tmp_path / str(at)))
        before = {path.name for path in directory.iterdir()}
        disk.count, disk.fail_at = 0, at
        try:
            resume(directory, CORPUS, CPU).train()
        except StorageError as error:
            failures += 1
            assert "disk is full" in str(error) or "config.json" in str(error)  # noqa: PT017
            assert "\n" not in str(error)  # noqa: PT017
        if disk.count < at:
            break
        disk.fail_at = -1
        unharmed(directory, before)
        states = list(directory.glob("state-*.safetensors"))
        assert len(states) >= 2
        resume(directory, CORPUS, CPU).train()
        assert end(directory) == end(whole), f"fault {at}"
    assert failures * every == at - 1 > 60


def test_a_disk_that_fills_at_any_write_of_a_new_run(
    tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk(monkeypatch, errno.EIO)
    refused = resumed = 0
    for at in range(1, 70, 3):
        directory = tmp_path / str(at)
        disk.count, disk.fail_at = 0, at
        with pytest.raises(StorageError, match="Input/output error"):
            begin(directory)
        disk.fail_at = -1
        assert not list(directory.glob(".*"))
        if list(directory.glob("state-*")):
            resumed += 1
            resume(directory, CORPUS, CPU).train()
            assert end(directory) == end(whole), f"fault {at}"
        else:
            refused += 1
            with pytest.raises(CharlmError, match=r"start the run again|no config\.json"):
                resume(directory, CORPUS, CPU)
    assert refused > 5
    assert resumed > 5


def lengths(size: int) -> Iterator[int]:
    """Nothing, around the eight bytes of a header's length, inside header and content, one byte short."""
    yield from sorted({n for n in (0, 1, 7, 8, 9, 64, size // 4, size // 2, size - 9, size - 1) if 0 <= n < size})


@pytest.mark.parametrize("every", EVERY)
def test_any_file_cut_anywhere_leaves_a_run_that_goes_on(every: int, tmp_path: Path, whole: Path, half: Path) -> None:
    expected, tried = end(whole), 0
    for original in sorted(half.iterdir()):
        for length in (*lengths(original.stat().st_size), None):
            tried += 1
            if tried % every:
                continue
            directory = Path(shutil.copytree(half, tmp_path / str(tried)))
            (directory / ".last.safetensors.abcdef12.tmp").write_bytes(b"left by a killed process")
            (directory / "curve.png").write_bytes(b"\x89PNG")
            if length is None:
                (directory / original.name).unlink()
            else:
                os.truncate(directory / original.name, length)
            resume(directory, CORPUS, CPU).train()
            assert end(directory) == expected, (original.name, length)
            unharmed(directory, {path.name for path in half.iterdir()})
    assert tried > 40


def test_foreign_files_are_not_swept_away(half: Path, tmp_path: Path) -> None:
    directory = Path(shutil.copytree(half, tmp_path / "run"))
    for name in ("notes.tmp", ".hidden", ".x.tmp"):
        (directory / name).write_text("mine")
    resume(directory, CORPUS, CPU)
    assert all((directory / name).read_text() == "mine" for name in ("notes.tmp", ".hidden", ".x.tmp"))


def tamper(half: Path, directory: Path, change: Callable[[dict[str, torch.Tensor], dict[str, Any]], None]) -> Path:
    """A run both of whose states were changed by someone who can compute checksums."""
    shutil.copytree(half, directory)
    for path in directory.glob("state-*"):
        tensors, metadata = read_tensors(path)
        facts = {name: json.loads(value) for name, value in metadata.items()}
        change(tensors, facts)
        write_tensors(path, tensors, {name: json.dumps(value) for name, value in facts.items()})
    return directory


HOSTILE: dict[str, Callable[[dict[str, torch.Tensor], dict[str, Any]], Any]] = {
    "a weight is missing": lambda t, f: t.pop("weights/head.linear.weight"),
    "a weight has another shape": lambda t, f: t.update({"weights/head.linear.weight": torch.zeros(2, 2)}),
    "weights are whole numbers": lambda t, f: t.update({k: t[k].long() for k in t if k.startswith("weights/")}),
    "an unknown weight": lambda t, f: t.update({"weights/../../x": torch.zeros(1)}),
    "an unknown slot's weight": lambda t, f: t.update({"optimizer/exp_avg/x": torch.zeros(1)}),
    "a slot has another shape": lambda t, f: t.update({"optimizer/exp_avg/head.linear.bias": torch.zeros(1)}),
    "a huge network": lambda t, f: f["config"]["training"]["network"].update(hidden=65_536, layers=64),
    "lanes of another number": lambda t, f: t.update({"carried/state/h0": torch.zeros(1, 5)}),
    "a step below zero": lambda t, f: f["progress"].update(step=-1),
    "a step that is a text": lambda t, f: f["progress"].update(step="9"),
    "a position that is no number": lambda t, f: f["progress"].update(position=[]),
    "an unknown fact": lambda t, f: f["progress"].update(x=1),
    "no validations": lambda t, f: f["progress"].update(every=0),
    "no plan": lambda t, f: f["config"].pop("training"),
    "no text": lambda t, f: f["config"].pop("text"),
    "another vocabulary": lambda t, f: f["vocab"].update(characters=["a", "b"]),
    "rows that are none": lambda t, f: f.update(rows=[1, 2]),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_state_is_refused_in_a_sentence(name: str, half: Path, tmp_path: Path) -> None:
    directory = tamper(half, tmp_path / "run", HOSTILE[name])
    with pytest.raises(CharlmError) as error:
        resume(directory, CORPUS, CPU).train()
    assert "\n" not in str(error.value)


def test_going_on_with_other_lanes(half: Path, tmp_path: Path) -> None:
    directory = Path(shutil.copytree(half, tmp_path / "run"))
    train = CORPUS.parts(SPLIT)["train"]
    old, new = (Lanes(CORPUS.ids, train, lanes=n, window=8, seed=1).windows_per_epoch for n in (3, 7))
    run = resume(directory, CORPUS, CPU, lanes=7)
    assert run.saved is not None
    tensors, progress = run.saved.tensors, run.saved.progress
    assert progress["step"] == 5
    assert progress["position"] == 5 // old * new + round(5 % old / old * new)
    assert not [name for name in tensors if name.startswith("carried/state/")]
    assert run.train(should_stop=after(1)) == "interrupted"
    config = json.loads((directory / "config.json").read_text())
    assert config["training"]["lanes"] == 7
    assert config["training"]["changes"] == [{"step": 5, "lanes": 7}]
    again = resume(directory, CORPUS, CPU)
    assert again.train() == "finished"
    assert end(directory)[1][-1]["step"] == 9
    assert again.plan.lanes == 7


def test_epochs_are_counted_in_data_when_lanes_change(tmp_path: Path) -> None:
    directory = begin(tmp_path / "run", after(3), max_steps=None, epochs=2.0)
    run = resume(directory, CORPUS, CPU, lanes=1)
    per_epoch = run.objective.steps_per_epoch
    assert run.saved is not None
    position = run.saved.progress["position"]
    run.train()
    last = end(directory)[1][-1]
    assert last["step"] == 4 + 2 * per_epoch - position
    assert last["epoch"] == 2.0


def test_the_backend_and_the_device_are_kept(tmp_path: Path) -> None:
    directory = begin(tmp_path / "run", after(2), backend="auto")
    kept = json.loads((directory / "config.json").read_text())["training"]
    assert kept["backend"] in ("fused", "torch")
    assert (kept["device"], kept["changes"]) == ("cpu", [])
    for backend in ("fused", "torch"):  # whichever it was: it is not measured again
        copy = tamper(
            directory, tmp_path / backend, lambda t, f, name=backend: f["config"]["training"].update(backend=name)
        )
        assert resume(copy, CORPUS, CPU).model.stack.backend == backend


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_runs_move_between_devices(tmp_path: Path) -> None:
    directory = begin(tmp_path / "run", after(2))
    run = resume(directory, CORPUS, torch.device("cuda"))
    assert run.train(should_stop=after(1)) == "interrupted"
    assert run.model.device.type == "cuda"
    run = resume(directory, CORPUS, CPU)
    assert run.train() == "finished"
    changes = json.loads((directory / "config.json").read_text())["training"]["changes"]
    assert [change["device"] for change in changes] == ["cuda", "cpu"]
    on_gpu, on_cpu = (load(directory, device=device) for device in ("cuda", "cpu"))
    ids = torch.from_numpy(CORPUS.ids[:50].astype(np.int64))[:, None]
    with torch.no_grad():
        a, _ = on_gpu.logprobs(ids.cuda(), on_gpu.initial_state(1))
        b, _ = on_cpu.logprobs(ids, on_cpu.initial_state(1))
    torch.testing.assert_close(a.cpu(), b, atol=1e-4, rtol=1e-4)


def test_double_and_single_precision_agree(tmp_path: Path) -> None:
    model = CharRNN(CORPUS.vocab, RNNConfig(model="lstm", hidden=6)).double()
    keep(tmp_path / "run", model, TextFacts.of(CORPUS, SPLIT))
    double, single = load(tmp_path / "run"), load(tmp_path / "run")
    assert isinstance(single, CharRNN)
    single.float()
    ids = torch.from_numpy(CORPUS.ids[:50].astype(np.int64))[:, None]
    with torch.no_grad():
        a, _ = double.logprobs(ids, double.initial_state(1))
        b, _ = single.logprobs(ids, single.initial_state(1))
    assert (a.dtype, b.dtype) == (torch.float64, torch.float32)
    torch.testing.assert_close(a.float(), b, atol=1e-5, rtol=1e-5)


# -- the command line ----------------------------------------------------------------------------------------------

QUICK = ("--model", "gru", "--hidden", "6", "--max-steps", "4", "--batch-size", "2", "--seq-length", "8")


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text(TEXT)
    return path


@pytest.fixture
def charlm_main(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str]]:
    """Runs a command in this process: exit code and stderr."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["charlm", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            charlm.cli.main()
        code = stop.value.code
        assert isinstance(code, int)
        return code, capsys.readouterr().err

    return run


def test_resuming_on_the_command_line(charlm_main: Any, text: Path) -> None:
    assert charlm_main("train", text, *QUICK, "--out", "run")[0] == 0
    code, err = charlm_main("train", "--resume", "run", "--max-steps", 8, "--batch-size", 4)
    assert code == 0, err
    assert "4 lanes" in err
    assert "not to the bit" in err
    code, err = charlm_main("train", "--resume", "run", "--max-steps", 10, "--device", "cpu")
    assert code == 0
    assert "not to the bit" not in err
    for name, value in (
        ("seed", 3),
        ("backend", "reference"),
        ("split", "50/25/25"),
        ("vocab-size", 5),
        ("newlines", "normalise"),
    ):
        code, err = charlm_main("train", "--resume", "run", f"--{name}", value)
        assert (code, f"--{name} cannot be changed" in err) == (2, True), err
    same = ("--layers", 2, "--hidden", 6, "--seed", 0, "--split", "80/10/10", "--newlines", "keep", "--out", "run")
    code, err = charlm_main("train", text, *QUICK[:4], *same, "--resume", "run", "--max-steps", 3)
    assert (code, "there is nothing to do: the run is at step 10, its budget is 3 steps" in err) == (0, True), err
    code, err = charlm_main("train", "--resume", "run", "--hidden", 7)
    assert (code, "it has 6, not 7" in err) == (2, True), err
    assert charlm_main("ngram", text, "--out", "counts")[0] == 0
    code, err = charlm_main("train", "--resume", "counts")
    assert (code, "no training run" in err) == (2, True)


def test_a_run_from_a_device_that_is_not_here(charlm_main: Any, text: Path, tmp_path: Path) -> None:
    assert charlm_main("train", text, *QUICK, "--out", "first", "--device", "cpu")[0] == 0
    tamper(tmp_path / "first", tmp_path / "run", lambda t, f: f["config"]["training"].update(device="cuda:99"))
    code, err = charlm_main("train", "--resume", "run", "--max-steps", 6)
    assert code == 0, err
    assert "the run was on cuda:99, which is not here" in err


def test_a_run_with_a_larger_vocabulary_than_its_text_goes_on(charlm_main: Any, text: Path) -> None:
    assert charlm_main("train", text, *QUICK, "--out", "first")[0] == 0
    text.write_text(TEXT.replace("crow", "row"))  # no c any more
    code, err = charlm_main(
        "train", text, "--init-from", "first", "--max-steps", 4, "--batch-size", 2, "--out", "second"
    )
    assert code == 0, err
    code, err = charlm_main("train", "--resume", "second", "--max-steps", 6)
    assert code == 0, err


def test_a_full_disk_while_training(charlm_main: Any, text: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = Disk(monkeypatch)
    disk.fail_at = 60
    code, err = charlm_main("train", text, *QUICK, "--out", "run")
    assert code == 1
    assert "Traceback" not in err
    sentence = err.splitlines()[-1]
    assert "the disk is full" in sentence
    assert "go on with charlm train --resume run" in sentence
    assert not Path("run/LOCK").exists()
    disk.fail_at = -1
    assert charlm_main("train", "--resume", "run")[0] == 0


@pytest.mark.parametrize("command", ["train", "ngram"])
def test_a_directory_that_cannot_be_written(
    command: str, charlm_main: Any, text: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", "locked")

    monkeypatch.setattr(Path, "mkdir", refuse)
    options = QUICK if command == "train" else ()
    code, err = charlm_main(command, text, *options, "--out", "locked/run")
    assert code == 1
    assert err.splitlines()[-1].startswith("charlm: locked/run")
    assert "Permission denied" in err
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("no directory")
    done = subprocess.run(
        [sys.executable, "-m", "charlm", command, str(text), *options, "--out", "file/run"],
        capture_output=True, text=True, check=False, cwd=tmp_path,
    )  # fmt: skip
    assert (done.returncode, "Traceback" in done.stderr) == (1, False), done.stderr
    assert "Not a directory" in done.stderr


def _cpu() -> None:
    raise RuntimeError("[enforce fail at alloc_cpu.cpp:121] . DefaultCPUAllocator: can't allocate memory: 99 bytes")


def _windows() -> None:
    raise RuntimeError("[enforce fail at alloc_cpu.cpp:81] . DefaultCPUAllocator: not enough memory")


def _gpu() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")


def _cublas() -> None:
    raise RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")


def _python() -> None:
    np.empty(1 << 60, dtype=np.uint8)


@pytest.mark.parametrize("failure", [_cpu, _windows, _gpu, _cublas, _python])
def test_out_of_memory_names_what_to_make_smaller(
    failure: Callable[[], None], charlm_main: Any, text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from charlm.training.language import LanguageObjective

    monkeypatch.setattr(LanguageObjective, "loss", lambda self, position: failure())
    code, err = charlm_main("train", text, *QUICK, "--out", "run")
    assert code == 1
    sentence = err.splitlines()[-1]
    assert sentence == "charlm: out of memory: take a smaller --hidden, --batch-size or --seq-length"


def test_other_errors_of_torch_are_not_taken_for_memory(
    charlm_main: Any, text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from charlm.training.language import LanguageObjective

    def fail(self: Any, position: int) -> None:
        raise RuntimeError("shapes cannot be multiplied")

    monkeypatch.setattr(LanguageObjective, "loss", fail)
    with pytest.raises(RuntimeError, match="shapes"):
        charlm_main("train", text, *QUICK, "--out", "run")


def shell(line: str, directory: Path, **environment: str) -> "subprocess.CompletedProcess[bytes]":
    command = line.replace("charlm", f"{sys.executable} -m charlm")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("LC_", "LANG", "PYTHON"))}
    return subprocess.run(
        ["bash", "-c", command], capture_output=True, check=False, cwd=directory, env={**kept, **environment}
    )


@pytest.mark.slow
def test_a_locale_of_ascii(charlm_main: Any, tmp_path: Path) -> None:
    (tmp_path / "überschrift.txt").write_text("žluťoučký kůň, 床前明月光。\n" * 20)
    strict = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = shell("charlm ngram überschrift.txt --order 3 --out zähler", tmp_path, **strict)
    assert done.returncode == 0, done.stderr
    assert b"Traceback" not in done.stderr
    directory = next(path for path in tmp_path.iterdir() if (path / "config.json").exists())
    directory.rename(tmp_path / "counts")
    assert charlm_main("info", "counts")[0] == 0
    done = shell("charlm sample counts --length 60", tmp_path, **strict)
    assert (done.returncode, done.stderr) == (0, b"")
    assert "床" in done.stdout.decode()
    done = shell("charlm info counts && charlm sample counts --length 9 --json", tmp_path, **strict)
    assert (done.returncode, done.stderr) == (0, b"")
    done = shell("charlm next counts ů", tmp_path, **strict)
    assert b"Traceback" not in done.stderr
    done = shell("charlm sample counts --length 60", tmp_path, LC_ALL="C", PYTHONIOENCODING="latin-1")
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"\\u5e8a" in done.stdout


@pytest.mark.slow
def test_a_closed_pipe_and_a_full_output(charlm_main: Any, text: Path, tmp_path: Path) -> None:
    assert charlm_main("ngram", text, "--out", "n")[0] == 0
    for line in (
        "charlm sample n --length 20000 | true",
        "charlm sample n --length 20000 --json | head -c 5 > /dev/null",
        "charlm info n | true",
    ):
        assert shell(line, tmp_path).stderr == b"", line
    if Path("/dev/full").exists():
        done = shell("charlm sample n > /dev/full", tmp_path)
        assert done.returncode == 1
        assert done.stderr.decode().splitlines() == ["charlm: No space left on device"]
    done = shell("charlm info n >&-", tmp_path)
    assert b"Traceback" not in done.stderr


@pytest.mark.slow
def test_a_terminal_of_twenty_columns(text: Path, tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    import fcntl
    import struct
    import termios

    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 5, 20, 0, 0))
    kept = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
    code = (  # bars at once, not after two seconds
        "import charlm.cli.common as c, tqdm; old = tqdm.tqdm\n"
        "tqdm.tqdm = lambda *a, **k: old(*a, **{**k, 'delay': 0, 'mininterval': 0})\n"
        "from charlm.cli import main; main()"
    )
    for arguments in (["train", str(text), *QUICK, "--out", "run"], ["--help"], ["train", "--help"]):
        process = subprocess.Popen(
            [sys.executable, "-c", code, *arguments], stdout=theirs, stderr=theirs, stdin=theirs, cwd=tmp_path, env=kept
        )
        shown = b""
        while process.poll() is None or select_ready(ours):
            if select_ready(ours):
                shown += os.read(ours, 65536)
        assert process.returncode == 0, shown.decode()
        assert shown
        assert b"Traceback" not in shown
    os.close(ours)
    os.close(theirs)


def select_ready(descriptor: int) -> bool:
    import select

    return bool(select.select([descriptor], [], [], 0.05)[0])


def test_nothing_that_is_no_file_is_opened(half: Path, tmp_path: Path) -> None:
    for number, name in enumerate(("config.json", "vocab.json", "best.safetensors")):
        directory = Path(shutil.copytree(half, tmp_path / str(number)))
        (directory / name).unlink()
        os.mkfifo(directory / name)  # reading it would wait for ever
        with pytest.raises(CheckpointError if name != "config.json" else CharlmError, match="not a file"):
            load(directory)
