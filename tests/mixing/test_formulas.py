"""The compiled arithmetic of contexts gives the numbers of the formulas in Python, bit for bit."""

import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from charlm.errors import OptionError
from charlm.mixing.contexts import Memory
from charlm.mixing.formulas import Formulas
from charlm.mixing.past import RATE, Plan, balanced
from charlm.nn.kernels import compiled
from charlm.text.vocab import Vocab

TEXT = "the cat's Hat.\n\nROMEO:\nthe cat sat, 12 on the mat,, the\n  cat's hat (sat).\n"
compiled_only = pytest.mark.skipif(compiled.library() is None, reason="the compiled kernels were not built here")


def vocabulary(symbols: int) -> Vocab:
    """So many symbols, those of TEXT first among them."""
    if symbols == 256:
        return Vocab.of_bytes()
    return Vocab(tuple(sorted([*sorted(set(TEXT)), *map(chr, range(0x3B1, 0x400))][:symbols])))


def memory(symbols: int, models: int) -> Memory:
    """A small memory, so that tables overflow and the ring of what was read comes round."""
    plan = Plan(vocabulary(symbols), balanced(np.arange(symbols) % 7 + 1), models, 100)
    plan.table_bits, plan.ring_bits, plan.match_bits, plan.apm_bits, plan.follow_bits = 10, 6, 6, 6, 6
    sizes = {"table": (1 << 10,), "ring": (64,), "places": (2, 64), "apms": (2, 64, 33), "followers": (3, 64)}
    plan.size = 0
    for name, (kind, shape) in plan.shapes.items():
        plan.shapes[name] = kind, sizes.get(name, shape)
        plan.offsets[name] = plan.size
        plan.size += -(-math.prod(sizes.get(name, shape)) * np.dtype(kind).itemsize // 64) * 64
    made = Memory(plan, bytearray(plan.size))
    made.begin()
    return made


def text_of(symbols: int, steps: int, generator: np.random.Generator) -> NDArray[np.int64]:
    """Words and lines over and over, with some symbols changed and some unknown."""
    vocab = vocabulary(symbols)
    ids = np.resize(vocab.encode(TEXT).astype(np.int64), steps) if symbols > 40 else np.arange(steps) % 7 % symbols
    noise = generator.integers(-1, symbols, size=steps)
    return np.where(generator.random(steps) < 0.85, ids, noise)


def rows_of(symbols: int, models: int, steps: int, generator: np.random.Generator) -> NDArray[np.float64]:
    """Rows of log-probabilities of other models, some of them flat, some with impossible symbols."""
    rows = np.log(generator.dirichlet(np.full(symbols, 0.3), size=(steps + 1, models)) + 1e-300)
    rows[5::9] = -math.log(symbols)
    if symbols > 1:
        rows[7::9, :, 0] = -np.inf
    return np.ascontiguousarray(rows)


CASES = [(1, 0), (2, 0), (2, 1), (65, 0), (65, 2), (256, 1)]


@compiled_only
@pytest.mark.parametrize(("symbols", "models"), CASES)
def test_rows_and_all_that_was_learned_are_equal(symbols: int, models: int) -> None:
    generator, steps = np.random.default_rng(symbols + models), 6 if symbols == 256 else 40
    ids_T, rows_TEV = text_of(symbols, steps, generator), rows_of(symbols, models, steps, generator)
    fast, plain = memory(symbols, models), memory(symbols, models)
    found = fast.read(ids_T, rows_TEV, foreseen=False, rows=True, rate=0.01)
    formulas = Formulas(plain.plan, plain.parts)
    options = {"foreseen": False, "targets_T": None, "rows": True, "rate": 0.01}
    expected = formulas.read(ids_T, rows_TEV if models else None, **options)  # type: ignore[arg-type]
    assert np.array_equal(found, expected)
    assert all(np.array_equal(fast.parts[name], plain.parts[name]) for name in plain.parts)
    assert np.abs(np.exp(expected).sum(1) - 1).max() < 1e-12


@compiled_only
@pytest.mark.parametrize(("symbols", "models"), [(2, 1), (65, 2), (256, 0)])
def test_targets_are_equal_and_are_picked_rows(symbols: int, models: int) -> None:
    generator, steps = np.random.default_rng(9), 70
    ids_T, rows_TEV = text_of(symbols, steps, generator), rows_of(symbols, models, steps, generator)
    targets_T = np.where(generator.random(steps) < 0.7, np.append(ids_T[1:], 0), generator.integers(-1, symbols, steps))
    known = targets_T >= 0
    tops_T, plain_T = np.zeros(steps, dtype=np.bool_), np.zeros(steps, dtype=np.bool_)
    asked = {"targets_T": targets_T, "rate": 0.01}
    found = memory(symbols, models).read(ids_T, rows_TEV, foreseen=False, tops_T=tops_T, **asked)  # type: ignore[arg-type]
    whole = memory(symbols, models).read(ids_T, rows_TEV, foreseen=False, rows=True, rate=0.01)
    assert found is not None
    assert whole is not None
    assert np.array_equal(found[known], whole[np.arange(steps), targets_T][known])
    assert np.array_equal(tops_T[known], (whole.argmax(1) == targets_T)[known])
    assert tops_T.any()
    plain = memory(symbols, models)
    options = {"foreseen": False, "tops_T": plain_T, "rows": False, **asked}
    expected = Formulas(plain.plan, plain.parts).read(ids_T, rows_TEV if models else None, **options)  # type: ignore[arg-type]
    assert np.array_equal(found[known], expected[known])
    assert np.array_equal(tops_T, plain_T)


@pytest.mark.parametrize(
    "wrong",
    [
        {"ids_T": np.array([0, 65])},
        {"ids_T": np.array([-2, 0])},
        {"targets_T": np.array([0, 65])},
        {"targets_T": np.array([0])},
        {"models_TEV": np.zeros((2, 1, 65))},
        {"models_TEV": np.zeros((3, 2, 65))},
    ],
)
def test_what_would_be_read_beyond_arrays_is_refused(wrong: dict[str, Any]) -> None:
    given = {"ids_T": np.array([0, 1]), "models_TEV": np.zeros((3, 1, 65)), "targets_T": np.array([1, -1])}
    memory(65, 1).read(**given)  # type: ignore[arg-type]
    with pytest.raises(OptionError):
        memory(65, 1).read(**given | wrong)  # type: ignore[arg-type]


@compiled_only
def test_a_decision_alone_is_the_share_of_its_branch() -> None:
    generator = np.random.default_rng(3)
    ids_T, rows_TEV = text_of(65, 40, generator), rows_of(65, 1, 40, generator)
    read, plain = memory(65, 1), memory(65, 1)
    row_V = read.read(ids_T, rows_TEV, foreseen=False, rows=True)[-1]  # type: ignore[index]
    formulas = Formulas(plain.plan, plain.parts)
    formulas.read(ids_T, rows_TEV, foreseen=False, targets_T=None, rows=False, rate=RATE)
    ones = np.exp(row_V[33:]).sum()  # the root cuts 65 symbols into 33 and 32
    assert read.one(0, 0) == pytest.approx(ones, rel=1e-12)
    assert formulas.one(0, 0) == read.one(0, 0)


@pytest.mark.parametrize("symbols", [2, 33, 256])
def test_a_tree_is_never_deeper_than_asked(symbols: int) -> None:
    weights = np.minimum(2 ** np.arange(symbols, dtype=np.float64), 2.0**40).astype(np.int64)
    for deepest in (8, 32):
        plan = Plan(Vocab.of_bytes() if symbols > 100 else vocabulary(symbols), balanced(weights, deepest), 0, 100)
        assert plan.tree.lengths[:symbols].max() <= deepest
        assert (0.5 ** plan.tree.lengths[:symbols].astype(float)).sum() == 1  # every branch ends in a symbol
