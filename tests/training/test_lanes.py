"""Every target exactly once an epoch, by counting; windows that continue each other; resets where spans begin."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from charlm.errors import OptionError, TextError
from charlm.training.language import Lanes


@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=5),
    st.integers(1, 12),
    st.integers(1, 15),
    st.integers(0, 2),
)
def test_each_target_once_an_epoch(lengths: list[int], lanes: int, window: int, epoch: int) -> None:
    edges = np.cumsum([0, *lengths])
    spans = np.stack([edges[:-1], edges[1:]], axis=1)
    expected = [i for start, end in spans.tolist() for i in range(start + 1, end)]
    if not expected:
        return
    cut = Lanes(np.arange(edges[-1]), spans, lanes=lanes, window=window)
    seen: list[int] = []
    starts = set(spans[:, 0].tolist())
    before: np.ndarray | None = None
    for number in range(cut.windows_per_epoch):
        piece = cut.window_at(epoch, number)
        inside = piece.targets_TB >= 0
        assert piece.count == inside.sum()
        assert (piece.targets_TB[inside] == piece.inputs_TB[inside] + 1).all()
        seen += piece.targets_TB[inside].tolist()
        assert piece.first == (number == 0)
        for t, inputs in enumerate(piece.inputs_TB):
            reset = np.zeros(cut.lanes, bool) if piece.resets_TB is None else piece.resets_TB[t]
            for lane in np.flatnonzero(inside[t]):
                if before is not None:  # a lane goes on where it stopped, or is reset at the start of a span
                    assert reset[lane] == (inputs[lane] in starts)
                    assert reset[lane] or inputs[lane] == before[lane] + 1
            before = inputs
    assert sorted(seen) == expected


def test_lanes_begin_elsewhere_in_every_epoch_and_the_same_for_one_seed() -> None:
    def first(seed: int, epoch: int) -> list[int]:
        return (
            Lanes(np.arange(1000), np.array([[0, 1000]]), lanes=4, window=5, seed=seed)
            .window_at(epoch, 0)
            .inputs_TB[0]
            .tolist()
        )

    assert len({tuple(first(0, epoch)) for epoch in range(5)}) == 5
    assert first(0, 3) == first(0, 3) != first(1, 3)


def test_nothing_to_train_on_is_refused() -> None:
    with pytest.raises(TextError, match="no character to predict"):
        Lanes(np.arange(3), np.array([[0, 1], [1, 2]]), lanes=2, window=2)
    with pytest.raises(OptionError, match="--batch-size"):
        Lanes(np.arange(3), np.array([[0, 3]]), lanes=0, window=2)
