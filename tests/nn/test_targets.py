"""Every target that the kernels are compiled for gives the numbers of the formulas; the fastest that runs is chosen."""

from __future__ import annotations

import importlib.util
import itertools
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from charlm.errors import OptionError
from charlm.lm.interface import SamplingRule
from charlm.nn.kernels import compiled, loops
from tests.nn.test_generate_kernels import assert_equal_to_steps, make
from tests.nn.test_kernels import KINDS, assert_same, numbers

ROOT = Path(__file__).parents[2]


def build() -> ModuleType:
    """setup.py as a module."""
    spec = importlib.util.spec_from_file_location("charlm_setup", ROOT / "setup.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def compile_library(to: Path, targets: list[tuple[str, int, int, list[str]]], *command: str) -> Path:
    """A library of some targets; skips the test where there is no such compiler."""
    command = command or ("cc",)
    if shutil.which(command[0]) is None:
        pytest.skip(f"there is no compiler {command[0]}")
    here = Path.cwd()
    os.chdir(ROOT)
    try:
        build().compile_kernels(to, list(command), targets)
    finally:
        os.chdir(here)
    return to


def use(monkeypatch: pytest.MonkeyPatch, library: compiled.Library) -> None:
    monkeypatch.setattr(compiled, "library", lambda: library)


def assert_right(kind: str, hidden: list[int]) -> None:
    """Layers and generation, in both precisions, with and without what can be left out."""
    shapes = [(1, 1), (3, 2), (4, 25), (3, 51)]
    for units, shape, flag in itertools.product(hidden, shapes, [False, True]):
        case = {"hidden": units, "shape": shape, "dense": flag, "bias": not flag, "resets": flag}
        right = numbers(kind, "reference", **case)
        assert_same(numbers(kind, "fused", **case), right)
        assert_same([x.double() for x in numbers(kind, "fused", dtype=torch.float32, **case)], right, 2e-5)
    for units, lanes in itertools.product(hidden, [1, 3, 29]):
        model = make(kind, symbols=37, layers=2, hidden=units)
        assert_equal_to_steps(model, SamplingRule(temperature=0.9, top_p=0.9), lanes)
        assert_equal_to_steps(model.with_bits(8), SamplingRule(), lanes)
        assert_equal_to_steps(model.with_bits(16), SamplingRule(), lanes)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("target", compiled.TARGETS)
def test_every_target_gives_the_numbers_of_the_formulas(
    target: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = {found.target: found for found in compiled.libraries()}
    if target not in there:
        pytest.skip(f"this machine does not run {target}, or it was not compiled")
    use(monkeypatch, there[target])
    assert_right(kind, [19, 40])


@pytest.mark.slow
def test_vectors_of_64_bytes_without_their_instructions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The arithmetic of the AVX-512 target on a machine without it: the compiler splits each vector."""
    if "avx2" not in {found.target for found in compiled.libraries()}:
        pytest.skip("this machine does not run avx2")
    path = compile_library(tmp_path / "wide.so", [("generic", 64, 24, ["-mavx2", "-mfma", "-Wno-psabi"])])
    (wide,) = compiled.open_library(path)
    assert wide.vector == 64
    use(monkeypatch, wide)
    for kind in KINDS:
        assert_right(kind, [1, 19, 40])


def test_an_assembler_without_the_instruction_leaves_bfloat16_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not compiled.multiplies_bf16():
        pytest.skip("this processor has no AVX512-BF16, or its assembler does not know it")
    setup = build()
    monkeypatch.setattr(setup, "assembles", lambda command, instruction: False)
    monkeypatch.chdir(ROOT)
    target = next(each for each in setup.TARGETS["x86_64"] if each[0] == "avx512")
    setup.compile_kernels(tmp_path / "old.so", ["cc"], [target])
    (old,) = compiled.open_library(tmp_path / "old.so")
    use(monkeypatch, old)
    assert not compiled.multiplies_bf16()
    assert_right("gru", [19])
    with pytest.raises(OptionError, match="products of bfloat16 need"):
        loops.product(torch.ones(2, 2), torch.ones(2, 2), pairs=True)


def emulator(name: str) -> str:
    """An emulator of Debian's package qemu-user; skips the test where it is not installed."""
    found = shutil.which(name)
    if found is None or sys.platform != "linux":
        pytest.skip(f"there is no {name} (Debian's package qemu-user)")
    return found


@pytest.mark.slow
@pytest.mark.parametrize(("cpu", "target"), [("Nehalem", "generic"), ("Haswell", "avx2")])
def test_one_library_serves_an_emulated_processor(cpu: str, target: str) -> None:
    if platform.machine() != "x86_64" or not compiled.libraries():
        pytest.skip("the kernels were not compiled for x86-64 here")
    program = (
        "import warnings; warnings.simplefilter('ignore')\n"
        "from charlm.nn.kernels.compiled import target\n"
        "from tests.nn.test_targets import KINDS, assert_right\n"
        "for kind in KINDS: assert_right(kind, [19])\n"
        "print(target())"
    )
    command = [emulator("qemu-x86_64"), "-cpu", cpu, sys.executable, "-W", "ignore", "-c", program]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout.split() == [target], done.stderr[-2000:]


@pytest.mark.slow
def test_neon_gives_the_numbers_of_the_formulas_on_an_emulated_processor(tmp_path: Path) -> None:
    qemu, compiler = emulator("qemu-aarch64"), shutil.which("aarch64-linux-gnu-gcc")
    if compiler is None:
        pytest.skip("there is no aarch64-linux-gnu-gcc (Debian's package gcc-aarch64-linux-gnu)")
    ((name, vector, sums, _),) = build().TARGETS["aarch64"]
    macros = [f"-DTARGET={name}", f"-DVECTOR={vector}", f"-DSUMS={sums}"]
    source, program = ROOT / "tests/nn/formulas.c", str(tmp_path / "formulas")
    subprocess.run([compiler, "-static", "-O2", *macros, str(source), "-o", program, "-lm", "-lpthread"], check=True)
    done = subprocess.run([qemu, program], capture_output=True, text=True, check=True)
    single, double, gradient, few_bits, product, product_double, *looking = map(float, done.stdout.split())
    assert single < 5e-6
    assert double < 1e-13
    assert gradient < 1e-8
    assert few_bits < 5e-6
    assert product < 2e-5
    assert product_double < 1e-12
    assert all(error < most for error, most in zip(looking, (5e-6, 1e-13, 1e-6, 1e-5, 5e-5), strict=True)), looking


def test_sums_of_rows_and_hashes_are_those_of_every_target(monkeypatch: pytest.MonkeyPatch) -> None:
    random = torch.Generator().manual_seed(1)
    rows, ids = torch.randn(50, 37, generator=random), torch.randint(-1, 6, (50,), generator=random)
    sums, hashes = [], set()
    for library in compiled.libraries():
        use(monkeypatch, library)
        sums.append(loops.sum_rows(rows, ids, 7))
        hashes.add(loops.hash_of(rows))
    right = torch.zeros(7, 37).index_add(0, torch.where(ids < 0, 6, ids), rows)
    assert all(torch.allclose(found, right, atol=1e-5) for found in sums)
    assert len(hashes) == min(1, len(sums))


def test_the_fastest_that_runs_is_used_unless_another_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    there = compiled.libraries()
    if not there:
        pytest.skip("the compiled kernels were not built here")
    choose = compiled.library.__wrapped__
    monkeypatch.delenv("CHARLM_KERNELS", raising=False)
    assert choose() == there[0]
    assert [found.target for found in there] == [name for name in compiled.TARGETS if name in {f.target for f in there}]
    for library in there:
        monkeypatch.setenv("CHARLM_KERNELS", library.target)
        assert choose() == library
    for wrong in ("sse9", "AVX2", next(name for name in compiled.TARGETS if name not in {f.target for f in there})):
        monkeypatch.setenv("CHARLM_KERNELS", wrong)
        with pytest.raises(OptionError, match=f"CHARLM_KERNELS={wrong} is none of the compiled kernels that run here"):
            choose()
    monkeypatch.setattr(compiled, "libraries", list)
    with pytest.raises(OptionError, match="unset it, as no compiled kernels are here"):
        choose()


def test_a_library_of_other_sources_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "text.so").write_text("no library")
    assert compiled.open_library(tmp_path / "text.so") == []
    if sys.platform == "linux":
        assert compiled.open_library(Path("libc.so.6")) == []


def test_the_command_says_which_kernels_were_named_in_vain() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "charlm", "selfcheck"],
        env={**os.environ, "CHARLM_KERNELS": "sse9"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "CHARLM_KERNELS=sse9" in done.stderr
    assert "Traceback" not in done.stderr
