"""Imports point downwards only, no two files import each other, and importing the package loads nothing heavy."""

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "charlm"
LEVELS = {
    "errors": 0,
    "files": 0,
    "display": 0,
    "codec": 0,
    "tensors": 0,
    "text": 1,
    "nn": 1,
    "lm": 2,
    "ngrams": 3,
    "recurrent": 3,
    "mixing": 4,
    "checkpoint": 5,
    "info": 6,
    "listing": 7,
    "training": 6,
    "sequences": 7,
    "comparison": 8,
    "compression": 6,
    "checks": 8,
    "pages": 8,
    "__init__": 9,
    "cli": 10,
    "__main__": 11,
}
FILES = sorted(PACKAGE.rglob("*.py"))


def module_of(path: Path) -> str:
    """charlm/text/vocab.py -> charlm.text.vocab; a package's file stands for the package."""
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_of(path): path for path in FILES}


@cache
def imports(path: Path) -> frozenset[str]:
    """The modules of this package that a file imports, inside functions and for type checking included."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            raise AssertionError(f"{path}: imports are absolute")
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "charlm":
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                found.add(full if full in MODULES else node.module)
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.split(".")[0] == "charlm"}
    return frozenset(found)


def room_of(module: str) -> str:
    """The room of a module, which has a level; the package itself is the door."""
    return module.split(".")[1] if "." in module else "__init__"


def test_every_arrow_points_down_or_stays_in_its_room() -> None:
    wrong = []
    for module, path in MODULES.items():
        room = room_of(module)
        assert room in LEVELS, f"{path}: which level is the room {room!r} on?"
        for other in imports(path):
            ground = LEVELS[room_of(other)] == LEVELS[room] == 0  # the files of level 0 are one room
            if room_of(other) != room and LEVELS[room_of(other)] >= LEVELS[room] and not ground:
                wrong.append(f"{module} imports {other}")
    assert not wrong


def test_no_files_import_each_other() -> None:
    """Removes files that import no remaining one, or that none imports, until none is left but those in cycles."""
    left = {module: {other for other in imports(path) if other != module} for module, path in MODULES.items()}
    left["charlm"] = set()  # the door looks names up when they are used
    while free := [
        module
        for module, others in left.items()
        if not others & set(left) or not any(module in others for others in left.values())
    ]:
        for module in free:
            del left[module]
    assert not left, f"cycles among {sorted(left)}"


def test_files_are_few_and_short() -> None:
    assert len(FILES) <= 115
    assert not [path.name for path in FILES if len(path.read_text().splitlines()) > 350]


@pytest.mark.parametrize("code", ["import charlm", "import charlm; dir(charlm)"])
def test_importing_is_silent_and_light(code: str) -> None:
    heavy = "{'click', 'tqdm', 'matplotlib', 'torch', 'numpy', 'sklearn', 'pandas'}"
    code = f"{code}; import sys; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")


def test_help_loads_no_torch() -> None:
    code = (
        "import sys; from charlm.cli import cli\n"
        "try: cli.main(['--help'])\nexcept SystemExit: pass\n"
        "assert not {'torch', 'numpy', 'matplotlib', 'tqdm'} & set(sys.modules), sys.modules.keys()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "train" in done.stdout


def test_functions_are_short() -> None:
    long = []
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef):
                body = node.body[1:] if ast.get_docstring(node) else node.body
                if body and node.end_lineno - body[0].lineno >= 60:  # type: ignore[operator]
                    long.append(f"{path.name}:{node.name}")
    assert not long
