"""Imports point downwards only, and importing the package loads nothing that it need not."""

import ast
import subprocess
import sys
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "charlm"
LEVELS = {
    "errors": 0,
    "files": 0,
    "version": 0,
    "progress": 0,
    "figures": 0,
    "codec": 0,
    "tensors": 1,
    "text": 1,
    "nn": 1,
    "lm": 2,
    "ngrams": 3,
    "recurrent": 3,
    "mixing": 3,
    "checkpoint": 4,
    "training": 5,
    "comparison": 7,
    "sequences": 6,
    "selfcheck": 7,
    "report": 7,
    "cli": 9,
}


def imports(path: Path) -> set[str]:
    """The rooms that a file imports from, function bodies included, type checking excluded."""
    tree = ast.parse(path.read_text())
    skipped = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    names = set()
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("charlm"):
            assert node.level == 0, f"{path}: imports are absolute"
            parts = node.module.split(".")
            names |= {parts[1]} if len(parts) > 1 else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("charlm.")}
    return names


def test_every_arrow_points_down_or_stays_in_its_room() -> None:
    wrong = []
    for path in sorted(PACKAGE.rglob("*.py")):
        room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if room in ("__init__", "__main__"):
            continue
        assert room in LEVELS, f"{path}: which level is the room {room!r} on?"
        for other in imports(path) - {room, "__version__", "CharlmError"}:
            ground = LEVELS[other] == LEVELS[room] == 0  # errors, files and version are one room
            if LEVELS[other] >= LEVELS[room] and not ground:
                wrong.append(f"{path.relative_to(PACKAGE)} imports {other}")
    assert not wrong


def test_importing_is_silent_and_light() -> None:
    code = "import charlm, sys; print(sorted({'click', 'tqdm', 'matplotlib', 'torch'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")


def test_help_loads_no_torch() -> None:
    code = (
        "import sys; from charlm.cli.main import cli\n"
        "try: cli.main(['--help'])\nexcept SystemExit: pass\n"
        "assert not {'torch', 'numpy', 'matplotlib', 'tqdm'} & set(sys.modules), sys.modules.keys()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "train" in done.stdout


def test_functions_are_short() -> None:
    long = []
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef):
                body = node.body[1:] if ast.get_docstring(node) else node.body
                if body and node.end_lineno - body[0].lineno >= 60:  # type: ignore[operator]
                    long.append(f"{path.name}:{node.name}")
    assert not long
