"""Figures are files: no window, no backend, whatever the environment asks for."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from charlm.display import check_picture, label_point, new_figure
from charlm.errors import OptionError

DRAWS = """
import os, sys
from pathlib import Path
from charlm.display import new_figure, save_figure
figure = new_figure(3, 2)
figure.add_subplot().plot([1, 2])
save_figure(figure, Path("drawn.png"))
assert "matplotlib.pyplot" not in sys.modules
print(os.environ["MPLBACKEND"])
"""


@pytest.mark.parametrize(
    "backend", ["module://nothing", "nothing", "qtagg", "module://matplotlib_inline.backend_inline"]
)
def test_a_backend_that_is_not_installed_is_not_asked_for(backend: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", DRAWS],
        cwd=tmp_path,
        env={**os.environ, "MPLBACKEND": backend, "PYTHONPATH": str(Path(__file__).parents[1])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == backend  # left as the user set it, for the user's own figures
    assert (tmp_path / "drawn.png").read_bytes().startswith(b"\x89PNG")


def test_another_ending_is_refused() -> None:
    with pytest.raises(OptionError, match=r"ends in \.png, \.svg, \.pdf"):
        check_picture(Path("curve.gif"))


def test_a_notebook_shows_a_figure_as_a_picture() -> None:
    figure = new_figure(3, 2)
    figure.add_subplot().plot([1, 2])
    assert figure._repr_png_().startswith(b"\x89PNG")  # type: ignore[attr-defined]


@pytest.mark.parametrize("x", [0.0, 3.0, 10.0])
@pytest.mark.parametrize("y", [1.0, 1.5, 2.0])
def test_a_label_stays_inside_its_frame(x: float, y: float) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure = new_figure(7, 4.2)
    axes = figure.add_subplot()
    axes.plot([0, 10], [1, 2])
    label_point(axes, "best 1.2345", x, y)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    label, frame = axes.texts[0].get_window_extent(), axes.get_window_extent()
    assert frame.x0 <= label.x0 <= label.x1 <= frame.x1
    assert frame.y0 <= label.y0 <= label.y1 <= frame.y1


def test_the_picture_of_units_has_a_key_to_its_colours() -> None:
    from charlm.recurrent.atlas import unit_figure

    values = np.linspace(-0.5, 2, 8)
    figure = unit_figure(list("abcdefgh"), [("one", values), ("two", -values)], [])
    keys = [[label.get_text() for label in axes.get_yticklabels()] for axes in figure.axes if not axes.texts]
    assert keys == [["-2.00", "0", "2.00"]] * 2
