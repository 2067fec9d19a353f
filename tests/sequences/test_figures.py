"""Pictures of probabilities: what must be in them is in them."""

from pathlib import Path

import numpy as np
import pytest

from charlm.errors import CharlmError
from charlm.sequences.figures import draw_confusion, draw_reliability
from charlm.sequences.metrics import reliability


def test_a_reliability_picture_names_its_curves(tmp_path: Path) -> None:
    picture = tmp_path / "r.svg"
    curve = reliability([0.1, 0.9, 0.8], [0, 1, 1])
    draw_reliability({"one $model": curve, "other": curve}, picture, title="held out", said="Score")
    drawn = picture.read_text()
    for words in ("one $model, expected error 0.133", "other, expected error", "held out", "perfectly calibrated"):
        assert f"<!-- {words}" in drawn  # text is drawn as outlines, with itself in a comment
    with pytest.raises(CharlmError):
        draw_reliability({}, picture)


def test_a_confusion_picture_shows_counts_and_odd_names(tmp_path: Path) -> None:
    picture = tmp_path / "c.svg"
    draw_confusion(np.array([[17, 2], [0, 31]]), ["$x$", "床前明月光疑是地上霜举头望明月低头思故乡"], picture)
    drawn = picture.read_text()
    assert "<!-- 17 -->" in drawn
    assert "<!-- 31 -->" in drawn
    assert drawn.count("<!-- 0 -->") == 1  # the colour bar's: where nothing was counted nothing is written
    with pytest.raises(CharlmError, match="60"):
        draw_confusion(np.eye(61, dtype=np.int64), [str(n) for n in range(61)], picture)
