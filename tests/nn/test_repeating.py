"""Texts that repeat themselves, where nothing is looked back on: the rule, and that a generation leaves its loops."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from charlm.lm.interface import SamplingRule, generate_by_steps
from charlm.nn import look_back
from charlm.nn.kernels import compiled
from charlm.nn.look_back import PERIODS, repeating
from charlm.recurrent.model import CharRNN, RNNConfig
from charlm.text.vocab import Vocab
from tests.helpers import looping


def by_hand(ids: list[int], pieces: list[int], most: int) -> list[bool]:
    """The definition, place by place."""
    found = []
    for end in range(1, len(ids) + 1):
        text = [id for id, piece in zip(ids[:end], pieces[:end], strict=True) if piece == pieces[end - 1]][-most:]
        found.append(False)
        for period in range(1, PERIODS + 1):
            last = text[-max(period, 12) :]
            before = text[: len(text) - period][-len(last) :]
            found[-1] |= len(before) == max(period, 12) and last == before and -1 not in last
    return found


def texts() -> Iterator[tuple[Tensor, Tensor]]:
    """Lanes of few symbols, some of which repeat what was before; pieces, and unknown characters."""
    for seed, (symbols, length, pieces) in enumerate([(1, 60, 0.02), (2, 400, 0.0), (2, 400, 0.01), (3, 300, 0.03)]):
        draw = torch.Generator().manual_seed(seed)
        ids_BS = torch.randint(0, symbols, (3, length), generator=draw)
        for begin in range(20, length, 50):
            period = int(torch.randint(1, 20, (), generator=draw))
            for place in range(begin, min(begin + 45, length)):
                ids_BS[1:, place] = ids_BS[1:, place - period]
        ids_BS[torch.rand(ids_BS.shape, generator=draw) < 0.01] = -1
        yield ids_BS, (torch.rand(ids_BS.shape, generator=draw) < pieces).cumsum(1)
    for seed in range(2):
        ids_BS = looping(seed, 3).unsqueeze(0)
        yield ids_BS, torch.zeros_like(ids_BS)


@pytest.mark.parametrize("most", [12, 13, 24, 50, 511, 512, 9999])
def test_it_is_its_definition(most: int) -> None:
    met = 0
    for ids_BS, piece_BS in texts():
        found = repeating(ids_BS, piece_BS, most)
        assert found.tolist() == [by_hand(*lane, most) for lane in zip(ids_BS.tolist(), piece_BS.tolist(), strict=True)]
        met += int(found.sum())
    assert met > 100 if most > 12 else met == 0


@pytest.mark.parametrize(("places", "string"), [(30, "ab"), (30, "abcdefgh"), (300, "a"), (300, "abcdefghijklmnopq")])
@pytest.mark.usefixtures("target")
def test_a_generation_leaves_the_loop_that_it_would_follow(
    places: int, string: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a network that hardly trusts itself, after a string that was repeated: compiled, and in steps."""
    model = CharRNN(Vocab.of("abcdefghijklmnopqrstuvwxyz"), RNNConfig(model="gru", hidden=24, look_back=places))
    model.reset_parameters(torch.Generator().manual_seed(1))
    assert model.look_back is not None
    with torch.no_grad():
        model.look_back.own.bias.fill_(-20.0)
    text = torch.tensor(model.vocab.encode(string * (60 // len(string))).tolist())
    loop = text.repeat(3)[:100].tolist()
    _, state = model.logprobs(text[:-1, None], model.initial_state(1))
    state, noise = {name: x.detach() for name, x in state.items()}, torch.full((100, 1), 0.5)
    given = text[-1:], state, 100, SamplingRule(temperature=0), noise
    drawn, logp, after = model.generate(*given)
    with torch.inference_mode():
        expected, expected_logp, expected_after = generate_by_steps(model, *given)
    assert torch.equal(drawn, expected)
    assert torch.allclose(logp, expected_logp, atol=1e-4)
    assert torch.equal(after["back_ids"], expected_after["back_ids"])
    assert drawn[:20, 0].tolist() != loop[:20]
    monkeypatch.setattr(look_back, "repeating", lambda ids_BS, *_: torch.zeros_like(ids_BS, dtype=torch.bool))
    monkeypatch.setattr(compiled, "fits", lambda tensor: False)
    with torch.inference_mode():
        assert generate_by_steps(model, *given)[0][:, 0].tolist() == loop
