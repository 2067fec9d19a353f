"""The part of the build that pyproject.toml cannot say: the kernels in C, compiled where there is a compiler.

One source is compiled once for each target, and all objects are linked into one plain library without Python's headers,
which `charlm.nn.kernels.compiled` loads through ctypes. Without a compiler the installation succeeds all the same,
and the recurrent layers run through torch; where CHARLM_WHEEL is set, as it is for published wheels, it is an error.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError

try:
    from setuptools.command.bdist_wheel import bdist_wheel
except ImportError:  # setuptools before 70: enough to compile, not to build a wheel
    bdist_wheel = None

KERNELS = Path("charlm/nn/kernels/cpu")
MIXING = Path("charlm/mixing/adaptive.c")
FLAGS = [
    "-std=gnu11",
    "-O3",
    "-falign-loops=64",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-ffp-contract=fast",
    "-fvisibility=hidden",
]
AVX2 = ["-mavx2", "-mfma"]
AVX512 = [*AVX2, "-mavx512f", "-mavx512vl", "-mavx512bw", "-mavx512dq", "-mprefer-vector-width=512"]
TARGETS = {  # of each processor: a target's name, bytes of a vector, sums in registers, flags; see kernels.c
    "x86_64": [("generic", 16, 12, []), ("avx2", 32, 12, AVX2), ("avx512", 64, 24, AVX512)],
    "aarch64": [("neon", 16, 24, [])],
}
TARGETS |= {"amd64": TARGETS["x86_64"], "arm64": TARGETS["aarch64"]}
OTHER = [("generic", 16, 12, [])]


def compiler() -> list[str]:
    """The C compiler's command: `$CC`, or the first that is there; on Windows only clang has vector extensions."""
    usual = ["clang"] if sys.platform == "win32" else ["cc", "gcc", "clang"]
    names = [os.environ["CC"]] if os.environ.get("CC") else usual
    for name in names:
        words = shlex.split(name)
        if shutil.which(words[0]):
            return [*words, *shlex.split(os.environ.get("ARCHFLAGS", ""))]
    raise CompileError(f"none of the compilers {', '.join(names)} is there")


def assembles(command: list[str], instruction: str) -> bool:
    """Whether the compiler's assembler knows an instruction, which older ones may not."""
    job = [*command, "-x", "c", "-c", "-", "-o", os.devnull]
    source = f'void f(void) {{ __asm__("{instruction}"); }}'
    return subprocess.run(job, input=source, text=True, capture_output=True, check=False).returncode == 0


def compile_kernels(library: Path, command: list[str], targets: list[tuple[str, int, int, list[str]]] | None = None):
    """Compiles the kernels for several targets at once and links them into `library`.

    Args:
        library: the file that is written.
        command: the compiler's.
        targets: those to compile; by default all of the processor that the compiler compiles for.
    """
    if targets is None:
        machine = subprocess.run([*command, "-dumpmachine"], capture_output=True, text=True, check=False).stdout
        targets = TARGETS.get(machine.partition("-")[0].strip().lower(), OTHER)
    position = [] if sys.platform == "win32" else ["-fPIC"]
    with tempfile.TemporaryDirectory() as room:
        jobs = [(KERNELS / "native.c", Path(room) / "native.o", [])]
        jobs.append((MIXING, Path(room) / "mixing.o", ["-ffp-contract=off"]))
        for name, vector, sums, flags in targets:
            macros = [f"-DTARGET={name}", f"-DVECTOR={vector}", f"-DSUMS={sums}"]
            if name == "avx512" and assembles(command, "vdpbf16ps %zmm0, %zmm1, %zmm2"):
                macros.append("-DBF16")
            jobs.append((KERNELS / "kernels.c", Path(room) / f"{name}.o", [*macros, *flags]))
        running = [
            subprocess.Popen([*command, *FLAGS, *position, *flags, "-c", str(source), "-o", str(to)])
            for source, to, flags in jobs
        ]
        failed = [process for process in running if process.wait()]
        if failed:
            raise CompileError(f"{' '.join(command)} could not compile the kernels")
        libraries = ["-lsynchronization"] if sys.platform == "win32" else ["-lpthread", "-ldl", "-lm"]
        objects = [str(to) for _, to, _ in jobs]
        library.parent.mkdir(parents=True, exist_ok=True)
        linked = subprocess.run([*command, "-shared", *objects, "-o", str(library), *libraries], check=False)
        if linked.returncode:
            raise CompileError(f"{' '.join(command)} could not link the kernels")


class BuildKernels(build_ext):
    """Compiles the kernels; setuptools goes on without them where that fails, as the extension is optional."""

    def get_ext_filename(self, fullname: str) -> str:
        """A name without Python's version, as the library does not depend on it."""
        return str(Path(*fullname.split("."))) + (".dll" if sys.platform == "win32" else ".so")

    def build_extension(self, ext: Extension) -> None:
        """Compiles and links."""
        compile_kernels(Path(self.get_ext_fullpath(ext.name)), compiler())


commands = {"build_ext": BuildKernels}
if bdist_wheel is not None:

    class Wheel(bdist_wheel):
        """A wheel for one platform and every Python 3."""

        def get_tag(self) -> tuple[str, str, str]:
            """The platform alone is tagged."""
            return "py3", "none", super().get_tag()[2]

    commands["bdist_wheel"] = Wheel

if __name__ == "__main__":
    sources = sorted(str(path) for path in (*KERNELS.glob("*.[ch]"), MIXING))
    optional = "CHARLM_WHEEL" not in os.environ
    setup(
        ext_modules=[Extension("charlm.nn.kernels.cpu._native", sources=sources, optional=optional)],
        cmdclass=commands,
    )
