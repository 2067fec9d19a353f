"""Python examples in README.md and docs/ run, command lines name options that exist, links lead to files."""

import ast
import importlib
import re
import shlex
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest

from charlm.cli import cli

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
NAMES = [str(page.relative_to(ROOT)) for page in PAGES if "_build" not in page.parts]


def python_blocks(page: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", (ROOT / page).read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def shortened(block: str) -> str:
    """The same code with trainings of a few steps, and new data of the right kind for each of the two estimators."""
    block = block.replace(".predict(new)", ".predict(sequences[:2])").replace("(new)", "(texts[:2])")
    block = re.sub(r'(Sequence\w+\(cell="\w+")\)', r"\1, max_steps=3)", block)
    block = re.sub(r"\bminutes=[\d.]+", "max_steps=3", block)
    return re.sub(r"\bepochs=\d+", "epochs=1", block)


def example_data() -> dict[str, Any]:
    """What an example that shows estimators may take for granted: texts with labels, sequences with scores."""
    draw = np.random.default_rng(0)
    return {
        "texts": ["abab", "bcb", "ab", "cbcbc"] * 5,
        "labels": ["ab", "bc", "ab", "bc"] * 5,
        "sequences": (sequences := [draw.normal(size=(3 + i % 4, 2)) for i in range(20)]),
        "scores": [1 / (1 + np.exp(-sequence.mean())) for sequence in sequences],
    }


def run(block: str, names: dict[str, Any]) -> None:
    """Runs a block as a notebook's cell: the value of a last expression is shown."""
    tree = ast.parse(block)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "example", "exec"), names)
    if isinstance(last, ast.Expr):
        shown = eval(compile(ast.Expression(last.value), "example", "eval"), names)
        assert "object at 0x" not in repr(shown)
        getattr(shown, "_repr_html_", str)()


@pytest.mark.parametrize("page", [page for page in NAMES if python_blocks(page)])
def test_python_examples_run(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    drama = (ROOT / "data" / "shakespeare.txt").read_text(encoding="utf-8")
    (tmp_path / "data" / "shakespeare.txt").write_text(drama[:20_000], encoding="utf-8")
    names: dict[str, Any] = {"__name__": "example", **example_data()}
    for block in python_blocks(page):
        run(shortened(block), names)


def command_lines() -> list[tuple[str, str]]:
    found = []
    for page in NAMES:
        for block in re.findall(r"^```(?:console)?\n(.*?)^```", (ROOT / page).read_text(), re.MULTILINE | re.DOTALL):
            found += [(page, line) for line in re.findall(r"(?:^\$ |^|&& |do )(charlm [a-z].*)$", block, re.MULTILINE)]
    return found


@pytest.mark.parametrize(("page", "line"), command_lines())
def test_command_lines_name_options_that_exist(page: str, line: str) -> None:
    words = shlex.split(re.split(r";| # ", line, maxsplit=1)[0])[1:]
    command: click.Command = cli
    while isinstance(command, click.Group) and words:
        name = words.pop(0)
        found = command.get_command(click.Context(command), name)
        assert found is not None, f"{page}: charlm has no command {name}"
        command = found
    known = {name for parameter in command.params for name in parameter.opts} | {"--help"}
    assert {word for word in words if word.startswith("--")} <= known


@pytest.mark.parametrize("page", NAMES)
def test_links_lead_to_files(page: str) -> None:
    for link in re.findall(r"\]\(([^)#\s]+)", (ROOT / page).read_text(encoding="utf-8")):
        if "://" not in link:
            assert ((ROOT / page).parent / link).exists(), f"{page} links to {link}"


def test_public_names_are_in_the_api_reference() -> None:
    reference = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    charlm = importlib.import_module("charlm")
    described = set(re.findall(r"charlm(?:\.\w+)*\.(\w+)$", reference, re.MULTILINE))
    public = {name for name in charlm.__all__ if not name.startswith("__")}
    assert public - set(vars(importlib.import_module("charlm.errors"))) <= described


def test_every_command_is_in_the_command_reference() -> None:
    reference = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
    (listed,) = re.findall(r":commands: (.*)", reference)
    context = click.Context(cli)
    names = cli.list_commands(context)
    assert sorted(re.split(r",\s*", listed)) == sorted(names)
    assert [command.name for name in names if (command := cli.get_command(context, name))] == names


def test_every_room_is_in_the_file_map() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    tops = [path for path in (ROOT / "charlm").iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()]
    names = [f"{path.name}/" if path.is_dir() else path.name for path in tops]
    assert not [name for name in names if name not in readme and name != "__main__.py"]
