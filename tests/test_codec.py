"""The codec: what is written by hand here is what it writes, and everything else is refused by name."""

import json
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import pytest

from charlm.codec import decode, encode
from charlm.errors import CheckpointError, OptionError
from charlm.text.splits import Split


@dataclass(frozen=True, kw_only=True)
class Inner:
    kind: str = "a"
    width: tuple[float, ...] = (1.0,)


SPLIT = Split()


@dataclass(frozen=True, kw_only=True)
class Outer:
    count: int
    share: float = 0.5
    on: bool = False
    limit: float | None = None
    pair: tuple[int, str] = (1, "x")
    inner: Inner | None = None
    split: Split = SPLIT
    exact: Fraction = Fraction(1, 3)

    def __post_init__(self) -> None:
        if self.count < 0:
            raise OptionError("count is not negative")


WHOLE = Outer(count=3, limit=2.0, inner=Inner(width=(1.0, 2.5)), split=Split.parse("lines:7:80/10/10"))
STORED = (
    '{"count": 3, "share": 0.5, "on": false, "limit": 2.0, "pair": [1, "x"], '
    '"inner": {"kind": "a", "width": [1.0, 2.5]}, "split": "lines:7:80/10/10", "exact": "1/3"}'
)


def test_it_writes_what_is_written_here_and_reads_it_back() -> None:
    assert json.dumps(encode(WHOLE)) == STORED
    assert decode(Outer, json.loads(STORED)) == WHOLE
    assert decode(Outer, {"count": 1}) == Outer(count=1)
    assert decode(Outer, {"count": 1, "other": 9}, beside=True) == Outer(count=1)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"count": None}, "count is None, not a whole number"),
        ({"count": True}, "count is True"),
        ({"count": 1 << 70}, "count is"),
        ({"count": "3"}, "count is '3', not a whole number"),
        ({"count": -1}, "count is not negative"),
        ({"share": float("nan")}, "share is nan, not a number"),
        ({"share": 10**400}, "int too large"),
        ({"on": 1}, "on is 1, not true or false"),
        ({"limit": "x"}, "limit is 'x', not a number"),
        ({"pair": [1]}, "pair is a list of 1 values, not of 2"),
        ({"pair": 5}, "pair is 5, not a list"),
        ({"inner": []}, "inner is [], not an object"),
        ({"inner": {"width": [1, "2"]}}, "inner.width[1] is '2', not a number"),
        ({"inner": {"size": 1}}, "unknown key 'inner.size'"),
        ({"split": "10/20"}, "split"),
        ({"split": 7}, "split is 7, not a text"),
        ({"exact": "1/0"}, "exact is '1/0', which cannot be read"),
        ({"more": 1}, "unknown key 'more'"),
    ],
)
def test_what_is_wrong_is_named(change: dict[str, Any], named: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        decode(Outer, {**json.loads(STORED), **change}, "the thing")
    assert str(caught.value).startswith("the thing is not whole: ")
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_keys_and_values_that_are_no_objects() -> None:
    for wrong in ({}, [], None, "x"):
        with pytest.raises(CheckpointError, match="not whole"):
            decode(Outer, wrong)
