"""JSON Lines as records: an object a line, and what is wrong with a line that is none."""

from __future__ import annotations

import json
from typing import Any

from charlm.errors import TextError

__all__ = ["json_records"]

_DEEPEST = 20  # lists in lists


def json_records(text: str, name: str) -> tuple[list[dict[str, Any]], list[int]]:
    """The objects of a text, and the line that each stands on; empty lines are passed over.

    >>> json_records('{"x": 1}\\n\\n{"x": 2}', "t")
    ([{'x': 1}, {'x': 2}], [1, 3])
    """
    records: list[dict[str, Any]] = []
    numbers: list[int] = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line, parse_constant=_no_constant)
            if line.count("[") + line.count("{") > _DEEPEST and _is_deep(record):
                raise RecursionError
        except RecursionError:
            raise TextError(f"line {number} of {name} is nested too deep for a table") from None
        except ValueError as error:
            raise TextError(f"line {number} of {name} is not JSON ({str(error)[:100]})") from None
        if not isinstance(record, dict):
            raise TextError(f'line {number} of {name} is not an object: each line is like {{"text": "…", "label": 1}}')
        records.append(record)
        numbers.append(number)
    return records, numbers


def _is_deep(value: Any) -> bool:
    """Whether lists and objects stand in each other deeper than any table needs."""
    level = [value]
    for _ in range(_DEEPEST):
        level = [inner for each in level for inner in (each.values() if isinstance(each, dict) else each)
                 if isinstance(inner, list | dict)]  # fmt: skip
    return bool(level)


def _no_constant(word: str) -> float:
    raise ValueError(f"{word} is no JSON number")
