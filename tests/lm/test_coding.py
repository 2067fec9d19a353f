"""The range coder against exact fractions, and its cost against what models say of a text."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch

from charlm.lm.coding import (
    DecisionSteps,
    RangeDecoder,
    RangeEncoder,
    Steps,
    decode_symbols,
    encode_symbols,
    frequencies,
)
from charlm.lm.interface import LanguageModel
from charlm.text.vocab import Vocab
from tests.lm.test_contract import CORPUS, MODELS

Share = tuple[int, int, int]  # start, size, total


def shares(seed: int, count: int) -> list[Share]:
    """Shares of every kind: even, minute, almost everything, at the upper and the lower end."""
    draw = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        total = int(draw.choice([1, 2, 3, 255, 256, 65_537, 2**30 + 7, 2**31]))
        kind = draw.integers(4)
        size = 1 if kind == 0 else max(1, total - 1) if kind == 1 else int(draw.integers(1, total + 1))
        start = total - size if kind < 3 else int(draw.integers(0, total - size + 1))
        found.append((start, size, total))
    return found


def written(parts: list[Share]) -> bytes:
    coder = RangeEncoder()
    for part in parts:
        coder.encode(*part)
    return coder.finish()


def places_by_fractions(content: bytes, parts: list[Share]) -> list[bool]:
    """Whether the number lies in each share, by exact fractions: no carry, no words, no bytes that are shifted out.

    The interval is a whole number of steps wide; a step becomes 256 times finer whenever there are fewer than 2**56.
    """
    number = Fraction(int.from_bytes(content, "big"), 256 ** len(content))
    low, steps, step = Fraction(0), 2**64 - 1, Fraction(1, 2**64)
    found = []
    for start, size, total in parts:
        unit = steps // total
        low, steps = low + step * unit * start, unit * size
        found.append(low <= number < low + step * steps)
        while steps < 2**56:
            steps, step = steps * 256, step / 256
    return found


@pytest.mark.parametrize("seed", range(30))
def test_the_number_lies_in_every_share(seed: int) -> None:
    parts = shares(seed, 60)
    assert all(places_by_fractions(written(parts), parts))


@pytest.mark.parametrize("seed", range(30))
def test_what_was_coded_is_decoded_and_as_long_as_its_shares_say(seed: int) -> None:
    parts = shares(seed, 400)
    content = written(parts)
    coder = RangeDecoder(content)
    for start, size, total in parts:
        assert start <= coder.place(total) < start + size
        coder.take(start, size)
    bits = sum(math.log2(total) - math.log2(size) for _, size, total in parts)
    assert len(content) <= bits / 8 * (1 + 1e-6) + 2


def test_a_carry_runs_through_many_bytes() -> None:
    """Middle thirds close in on 1/2 from 0x7FFF...; the last share lies above it, so that all bytes written change."""
    middle = [(1, 1, 3)] * 36
    below, above = written([*middle, (0, 1, 3)]), written([*middle, (2, 1, 3)])
    assert below[:7] == b"\x7f" + b"\xff" * 6
    assert above[:7] == b"\x80" + b"\x00" * 6
    assert all(places_by_fractions(above, [*middle, (2, 1, 3)]))


def test_nothing_is_written_for_what_is_certain() -> None:
    assert written([(0, 5, 5)] * 1000) == b""


def test_frequencies_of_impossible_and_undefined_rows() -> None:
    logp = np.array([[0.0, -np.inf, -np.inf], [np.nan] * 3, np.log([0.7, 0.2, 0.1])])
    sums = frequencies(logp)
    sizes = np.diff(sums, axis=1)
    assert sizes[0].tolist() == [2**30 + 1, 1, 1]
    assert len(set(sizes[1].tolist())) == 1
    np.testing.assert_allclose(sizes[2] / sums[2, -1], [0.7, 0.2, 0.1], rtol=1e-7)


def cost(model: LanguageModel, first: int, ids: np.ndarray) -> float:
    """Bits of a text that is read in one call after a first symbol; an undefined row counts as uniform."""
    read = torch.tensor([first, *ids.tolist()])[:, None]
    with torch.no_grad():
        logp, _ = model.target_logprobs(read[:-1], read[1:], model.initial_state(1))
    logp = torch.where(logp.isnan(), -math.log(len(model.vocab)), logp.double())
    return -float(logp.sum()) / math.log(2)


@pytest.mark.parametrize("name", MODELS)
def test_every_model_codes_and_decodes_at_the_cost_that_it_says(name: str) -> None:
    model = MODELS[name]()
    ids = CORPUS.ids[:90].astype(np.int64)
    none = np.zeros(0, dtype=np.int64)
    coded = encode_symbols(model, 0, ids, none)
    assert coded.unknown_bits == 0
    expected = cost(model, 0, ids)
    if math.isfinite(expected):
        assert coded.bits == pytest.approx(expected, rel=1e-5)
    assert coded.bits / 8 - 1 <= len(coded.written) <= coded.bits / 8 + 2
    found, codes = decode_symbols(model, 0, coded.written, symbols=90, unknown=0)
    assert (found == ids).all()
    assert not len(codes)


@pytest.mark.parametrize("lanes", [1, 3, 7, 200])
@pytest.mark.parametrize("name", ["none 4", "kneser-ney 4", "gru", "mixture with a cache"])
def test_lanes_and_unknown_characters(name: str, lanes: int) -> None:
    model, draw = MODELS[name](), np.random.default_rng(lanes)
    ids = CORPUS.ids[:100].astype(np.int64)
    ids[draw.integers(0, 100, 9)] = -1
    codes = draw.choice([0xE9, 0x4E00, 0x1F600, 0xDC80, 1], size=int((ids < 0).sum())).astype(np.int64)
    lanes = min(lanes, 100)
    coded = encode_symbols(model, 0, ids, codes, lanes=lanes)
    assert coded.bits / 8 - 1 <= len(coded.written) <= coded.bits / 8 + 2
    again = decode_symbols(model, 0, coded.written, symbols=100, unknown=len(codes), lanes=lanes)
    assert [part.tolist() for part in again] == [ids.tolist(), codes.tolist()]


def test_lanes_cost_what_their_texts_cost_alone() -> None:
    model = MODELS["kneser-ney 4"]()
    ids = CORPUS.ids[:99].astype(np.int64)
    coded = encode_symbols(model, 0, ids, np.zeros(0, dtype=np.int64), lanes=3)
    assert coded.bits == pytest.approx(sum(cost(model, 0, ids[at : at + 33]) for at in (0, 33, 66)), rel=1e-6)


class Uniform(LanguageModel):
    """Every symbol is as probable as any other."""

    vocab = Vocab.of("abcd")
    device = torch.device("cpu")

    def initial_state(self, lanes: int) -> dict[str, torch.Tensor]:
        return {}

    def logprobs(self, ids_TB: torch.Tensor, state: dict[str, torch.Tensor]) -> tuple[torch.Tensor, dict]:
        return torch.full((*ids_TB.shape, 4), -math.log(4)), state


def test_the_cost_of_unknown_characters_by_hand() -> None:
    """Known, unknown é, unknown é, known: whether one comes, of which kind, which of its kind, and the known ones."""
    ids, codes = np.array([0, -1, -1, 3]), np.array([0xE9, 0xE9])
    comes = [1 / 2, 1 / 4, 1 / 2, 1 / 4]  # after known: 1 : 1, 3 : 1; after unknown: 1 : 1, 1 : 3
    new = 1 / 5 / (0x800 - 0x80)  # one of five kinds, and of its code points; the second time it is 1 of 2 : new
    coded = encode_symbols(Uniform(), 0, ids, codes)
    unknown = -math.log2(math.prod(comes) * new * 1 / 2)
    assert coded.unknown_bits == pytest.approx(unknown)
    assert coded.bits == pytest.approx(unknown + 4)


class Habit(LanguageModel):
    """Decisions of a fixed tree, each with a probability that depends on the last symbol."""

    vocab = Vocab.of("abcde")
    device = torch.device("cpu")
    child = np.array([[1, 2], [~4, ~0], [~2, 3], [~1, ~3]])

    def initial_state(self, lanes: int) -> dict[str, torch.Tensor]:
        return {}

    def logprobs(self, ids_TB: torch.Tensor, state: dict[str, torch.Tensor]) -> tuple[torch.Tensor, dict]:
        """By hand: the paths of a, b, c, d and e."""
        rows = []
        for id in ids_TB.reshape(-1).tolist():
            one = [self.probability(id, decision) for decision in range(4)]
            right = one[0] * one[2]
            paths = [(1 - one[0]) * one[1], right * (1 - one[3]), one[0] * (1 - one[2]), right * one[3]]
            rows.append([*paths, (1 - one[0]) * (1 - one[1])])
        return torch.tensor(rows, dtype=torch.float64).log().reshape(*ids_TB.shape, 5), state

    def probability(self, last: int, decision: int) -> float:
        return 1.0 if (last, decision) == (2, 0) else (1 + (3 * last + 5 * decision) % 7) / 9

    def stepper(self) -> "Habit":
        self.last = 0
        return self

    def read(self, id: int, *, row: bool = True) -> None:
        self.last = id

    def one(self, decision: int, depth: int) -> float:
        assert depth == [0, 1, 1, 2][decision]
        return self.probability(self.last, decision)


def test_decisions_cost_what_rows_cost() -> None:
    ids = np.random.default_rng(0).integers(0, 5, 300)
    for at in np.flatnonzero(ids[:-1] == 2):
        ids[at + 1] = max(1, ids[at + 1] % 4)  # neither a nor e comes after c
    by_rows = Steps(Habit(), 1), DecisionSteps(Habit())
    coders = RangeEncoder(), RangeEncoder()
    for last, id in zip([0, *ids.tolist()], ids.tolist(), strict=False):
        for steps, coder in zip(by_rows, coders, strict=True):
            steps.read(np.array([last]))
            steps.code(coder, 0, id)
    assert coders[1].bits == pytest.approx(coders[0].bits, abs=1e-3)
    coded = encode_symbols(Habit(), 0, ids, np.zeros(0, dtype=np.int64))
    assert coded.written == coders[1].finish()
    assert decode_symbols(Habit(), 0, coded.written, symbols=len(ids), unknown=0)[0].tolist() == ids.tolist()


def test_an_impossible_decision_can_be_coded() -> None:
    ids = np.array([2, 0, 2, 4])  # after c, which has id 2, the first decision is one with certainty
    coded = encode_symbols(Habit(), 0, ids, np.zeros(0, dtype=np.int64))
    assert coded.bits > 60
    assert decode_symbols(Habit(), 0, coded.written, symbols=4, unknown=0)[0].tolist() == ids.tolist()
