"""The part of the build that pyproject.toml cannot say: the kernels in C, built where there is a compiler.

Without one the installation succeeds all the same, and the recurrent layers run through torch.
"""

import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

KERNELS = Path("charlm/nn/kernels/cpu")
FLAGS = [
    "-O3",
    "-march=native",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-ffp-contract=fast",
    "-Wno-maybe-uninitialized",
]
PLAIN_FLAGS = ["-O3"]  # for a compiler that does not know the others


class BuildKernels(build_ext):
    """A plain library without Python's headers: only the functions of native.c, called through ctypes."""

    def build_extension(self, ext: Extension) -> None:
        """Builds for this very machine, or in general terms, or not at all."""
        objects = None
        for flags in (FLAGS, PLAIN_FLAGS):
            try:
                objects = self.compiler.compile(
                    ext.sources, output_dir=self.build_temp, extra_postargs=flags, depends=ext.depends
                )
                break
            except Exception as error:  # whatever a compiler can fail with
                sys.stderr.write(f"charlm: the kernels did not compile with {' '.join(flags)}: {error}\n")
        if objects is None:
            raise self.compiler_error()
        target = Path(self.get_ext_fullpath(ext.name))
        target.parent.mkdir(parents=True, exist_ok=True)
        self.compiler.link_shared_object(
            objects, str(target), libraries=[] if sys.platform == "win32" else ["pthread", "dl", "m"]
        )

    @staticmethod
    def compiler_error() -> Exception:
        """What setuptools takes as a reason to go on without an optional extension."""
        from setuptools.errors import CompileError

        return CompileError("no compiler could build the kernels; charlm works without them")


setup(
    ext_modules=[
        Extension(
            "charlm.nn.kernels.cpu._native",
            sources=[str(KERNELS / "native.c")],
            depends=sorted(str(path) for path in KERNELS.glob("*.h")),
            optional=True,
        )
    ],
    cmdclass={"build_ext": BuildKernels},
)
