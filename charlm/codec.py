"""JSON: dataclasses to JSON values and back, which says how a configuration is stored, and lines of objects.

A dataclass becomes an object with its fields as keys, in their order; a tuple becomes a list. A class with a text form
of its own (`Split`: `str(split)` and `Split.parse(text)`; `Fraction`; `Path`) becomes that text, and a class with
`to_json` and `from_json` of its own what these say. Reading trusts nothing: a missing key without a default, an unknown
key and a value of another type are refused by name. JSON Lines, an object a line, is how tables are read and written.
"""

from __future__ import annotations

import json
import math
import re
import types
from collections.abc import Mapping, Sequence, Set
from dataclasses import MISSING, fields, is_dataclass
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from charlm.errors import CharlmError, CheckpointError, TextError

_Kind = TypeVar("_Kind")
_NAMES: dict[Any, str] = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}
_LARGEST = 1 << 62  # no whole number that is stored comes near it


def encode(value: Any) -> Any:
    """The JSON value of a dataclass, or of a value that may stand in one.

    >>> from dataclasses import dataclass
    >>> @dataclass(frozen=True)
    ... class Shape:
    ...     width: int
    ...     betas: tuple[float, ...] = (0.9, 0.99)
    >>> encode(Shape(3))
    {'width': 3, 'betas': [0.9, 0.99]}
    """
    if is_dataclass(value) and not isinstance(value, type):
        if _by_text(type(value)):
            return str(value)
        return {field.name: _inner(getattr(value, field.name)) for field in fields(value)}
    return _inner(value)


def _inner(value: Any) -> Any:
    if hasattr(value, "to_json"):
        return value.to_json()
    if isinstance(value, (Fraction, Path)) or _by_text(type(value)):
        return str(value)
    if is_dataclass(value):
        return encode(value)
    if isinstance(value, (tuple, list)):
        return [_inner(each) for each in value]
    if isinstance(value, Mapping):
        return {name: _inner(each) for name, each in value.items()}
    return value


def decode(
    kind: type[_Kind],
    value: Any,
    what: str = "the stored value",
    *,
    beside: bool = False,
    whole: bool = False,
) -> _Kind:
    """The dataclass that `encode` made a JSON value of.

    Args:
        kind: the dataclass.
        value: as `json.loads` gives it.
        what: is read, for messages: "the stored plan of training".
        beside: whether keys that are not the dataclass's may stand beside its own; they are left alone.
        whole: whether every field must be there, those with a default too.

    Raises:
        CheckpointError: a key is missing or unknown, a value has another type, or the class itself refuses the values.

    >>> from dataclasses import dataclass
    >>> @dataclass(frozen=True)
    ... class Shape:
    ...     width: int
    ...     height: float | None = None
    >>> decode(Shape, {"width": 3})
    Shape(width=3, height=None)
    >>> decode(Shape, {"width": "3"}, "the shape")
    Traceback (most recent call last):
    charlm.errors.CheckpointError: the shape is not whole: width is '3', not a whole number
    """
    try:
        found: _Kind = _object(kind, value, "", beside, whole)
    except (CharlmError, _WrongError, OverflowError) as wrong:
        raise CheckpointError(f"{what} is not whole: {wrong}") from None
    return found


class _WrongError(Exception):
    """What is wrong with a value, without the words around it."""


@cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


def _by_text(kind: Any) -> bool:
    """Whether values of a class are stored as the text that its `parse` reads."""
    return isinstance(kind, type) and hasattr(kind, "parse")


def _object(kind: Any, value: Any, path: str, beside: bool = False, whole: bool = False) -> Any:
    if not isinstance(value, Mapping):
        raise _WrongError(f"{path or 'it'} is {_shown(value)}, not an object")
    known = {field.name: field for field in fields(kind)}
    unknown = [str(name) for name in value if name not in known]
    if unknown and not beside:
        raise _WrongError(f"it has the unknown key {_shown(_join(path, unknown[0]))} (known: {', '.join(known)})")
    found = {}
    for name, field in known.items():
        if name in value:
            found[name] = _value(_hints(kind)[name], value[name], _join(path, name))
        elif whole or (field.default is MISSING and field.default_factory is MISSING):
            raise _WrongError(f"it has no {_join(path, name)}")
    return kind(**found)


def _value(kind: Any, value: Any, path: str) -> Any:
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        kinds = [each for each in arguments if each is not type(None)]
        return _first(kinds, value, path)
    if origin is tuple:
        return _tuple(arguments, value, path)
    if origin is Literal:
        if not any(value == each and type(value) is type(each) for each in arguments):
            raise _WrongError(f"{path} is {_shown(value)}, not one of {', '.join(map(str, arguments))}")
        return value
    if kind is Any:
        return value
    return _single(kind, value, path)


def _first(kinds: list[Any], value: Any, path: str) -> Any:
    """The value as the first of several types that takes it."""
    for kind in kinds[:-1]:
        try:
            return _value(kind, value, path)
        except _WrongError:
            continue
    return _value(kinds[-1], value, path)


def _tuple(kinds: tuple[Any, ...], value: Any, path: str) -> tuple[Any, ...]:
    if not isinstance(value, (list, tuple)):
        raise _WrongError(f"{path} is {_shown(value)}, not a list")
    if len(kinds) == 2 and kinds[1] is ...:
        kinds = kinds[:1] * len(value)
    if len(kinds) != len(value):
        raise _WrongError(f"{path} is a list of {len(value)} values, not of {len(kinds)}")
    return tuple(_value(kind, each, f"{path}[{n}]") for n, (kind, each) in enumerate(zip(kinds, value, strict=True)))


def _single(kind: Any, value: Any, path: str) -> Any:
    if hasattr(kind, "from_json"):
        return kind.from_json(value)
    if _by_text(kind) or kind in (Fraction, Path):
        if not isinstance(value, str):
            raise _WrongError(f"{path} is {_shown(value)}, not a text")
        try:
            return kind.parse(value) if _by_text(kind) else kind(value)
        except (ValueError, ZeroDivisionError):
            raise _WrongError(f"{path} is {_shown(value)}, which cannot be read") from None
    if is_dataclass(kind):
        return _object(kind, value, path)
    if kind is float and type(value) in (int, float) and math.isfinite(float(value)):
        return float(value)
    if kind is not float and type(value) is kind and not (kind is int and abs(value) >= _LARGEST):
        return value
    raise _WrongError(f"{path} is {_shown(value)}, not {_NAMES.get(kind, getattr(kind, '__name__', str(kind)))}")


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _shown(value: Any) -> str:
    """A value in a message: short, whatever was stored."""
    try:
        text = repr(value)
    except ValueError:  # a whole number with more digits than Python writes
        return "a number out of all bounds"
    return text if len(text) <= 60 else text[:57] + "..."


# -- lines of objects --------------------------------------------------------------------------------------------------

HALF = re.compile("[\ud800-\udfff]")
"""A surrogate: half a character, which no file can spell."""

_DEEPEST = 20  # lists in lists


def json_records(text: str, name: str) -> tuple[list[dict[str, Any]], list[int]]:
    """The objects of a text, and the line that each stands on; empty lines are passed over."""
    records: list[dict[str, Any]] = []
    numbers: list[int] = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line, parse_constant=_no_constant, parse_float=_finite)
            if line.count("[") + line.count("{") > _DEEPEST and _is_deep(record):
                raise RecursionError
        except RecursionError:
            raise TextError(f"line {number} of {name} is nested too deep for a table") from None
        except OverflowError as error:
            raise TextError(f"line {number} of {name}: {error} is too large a number") from None
        except ValueError as error:
            raise TextError(f"line {number} of {name} is not JSON ({str(error)[:100]})") from None
        if "\\ud" in line.lower() and HALF.search(json.dumps(record, ensure_ascii=False)):
            raise TextError(f"line {number} of {name} holds half a character (a lone surrogate)")
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


def _finite(word: str) -> float:
    number = float(word)
    if not math.isfinite(number):
        raise OverflowError(word[:40])
    return number


def json_lines(columns: Mapping[str, Any], numbers: Sequence[int], nulls: Set[tuple[int, str]]) -> str:
    r"""The rows of a table as strict JSON, an object a line.

    Args:
        columns: by name; a key whose value is None is left out of its line.
        numbers: what each row is called by.
        nulls: the number and column of each cell in which null is written all the same.

    Raises:
        TextError: a number that JSON has no spelling for.

    >>> json_lines({"a": [1, None], "b": [None, None]}, [1, 2], {(2, "a")})
    '{"a": 1}\n{"a": null}\n'
    """
    lines = []
    for number, *row in zip(numbers, *columns.values(), strict=True):
        cells = zip(columns, row, strict=True)
        kept = {name: cell for name, cell in cells if cell is not None or (number, name) in nulls}
        try:
            lines.append(json.dumps(kept, ensure_ascii=False, allow_nan=False) + "\n")
        except ValueError:
            raise TextError(f"row {number} holds NaN or infinity, which JSON has no spelling for") from None
    return "".join(lines)
