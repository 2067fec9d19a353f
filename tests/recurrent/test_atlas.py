"""What is read of a network's units: against the network's own answers, and however it is cut."""

import numpy as np
import pytest
import torch

from charlm.errors import TextError
from charlm.recurrent.atlas import Unit, read_units
from charlm.recurrent.model import CharRNN, RNNConfig
from charlm.text.vocab import Vocab

TEXT = "look (here) and there, abracadabra "
VOCAB = Vocab.of(TEXT)
IDS = np.append(VOCAB.encode(TEXT).astype(np.int64), -1)


def network(model: str = "lstm", **options: int) -> CharRNN:
    made = CharRNN(VOCAB, RNNConfig(model=model, hidden=6, layers=2, **options))
    made.reset_parameters(torch.Generator().manual_seed(3))
    for parameter in made.stack.parameters():
        parameter.data.mul_(4)  # so that gates saturate
    if made.grams is not None:
        made.grams.weight.data[:-1].normal_(generator=torch.Generator().manual_seed(4))
    return made


def test_values_are_the_states_after_each_character() -> None:
    model = network(embedding=5)
    atlas = read_units(model, IDS, chunk=7)
    assert len(atlas.units) == 24
    state = model.initial_state(1)
    for t, id in enumerate(IDS.tolist()):
        with torch.no_grad():
            _, state = model.logprobs(torch.tensor([[id]]), state)
        for unit in (Unit(0, 5, "h"), Unit(1, 2, "h")):
            assert float(atlas.values_UT[atlas.row(unit), t]) == pytest.approx(
                float(state[f"h{unit.layer}"][0, unit.number]), abs=1e-3
            )
        kept = float(torch.tanh(state["c1"][0, 4]))
        assert float(atlas.values_UT[atlas.row(Unit(1, 4, "c")), t]) == pytest.approx(kept, abs=1e-3)


@pytest.mark.parametrize("options", [{}, {"grams": 90}, {"look_back": 9}])
def test_the_next_characters_are_the_models_own(options: dict[str, int]) -> None:
    model = network("gru", **options)
    seen: list[int] = []
    atlas = read_units(model, IDS, shown=(5, 20), top=3, chunk=8, progress=seen.append)
    assert sum(seen) == len(IDS)
    assert atlas.first == 5
    with torch.no_grad():
        logp_TBV, _ = model.logprobs(torch.from_numpy(IDS).unsqueeze(-1), model.initial_state(1))
    for s in range(15):
        p_V = logp_TBV[5 + s, 0].exp()
        assert set(atlas.top_SK[s].tolist()) == set(p_V.argsort(descending=True)[:3].tolist())
        assert atlas.chance_SK[s] == pytest.approx(np.sort(p_V.numpy())[::-1][:3], abs=1e-6)


@pytest.mark.parametrize(("cell", "gates"), [("lstm", "ifo"), ("gru", "rz"), ("rnn", "")])
def test_saturation_by_counting(cell: str, gates: str) -> None:
    model = network(cell)
    atlas = read_units(model, IDS, chunk=5)
    assert [(item.layer, item.gate) for item in atlas.gates] == [(n, gate) for n in (0, 1) for gate in gates]
    for item in atlas.gates:
        layer = model.stack.cell(item.layer)
        place = {"lstm": "ifgo", "gru": "rzn"}[cell].index(item.gate)
        low, high = np.zeros(6), np.zeros(6)
        state = model.initial_state(1)
        for id in IDS.tolist():
            before = state
            with torch.no_grad():
                _, state = model.logprobs(torch.tensor([[id]]), state)
                if item.layer:
                    given = layer.input_gates(state["h0"])
                else:
                    given = layer.gathered_gates(torch.tensor([id]))
                carried = before[f"h{item.layer}"] @ layer.weight_hh.t() + layer.bias_hh
                value = torch.sigmoid(given + carried)[0, 6 * place : 6 * place + 6].numpy()
            low += value < 0.1
            high += value > 0.9
        assert item.left_H == pytest.approx(low / len(IDS))
        assert item.right_H == pytest.approx(high / len(IDS))
        assert (item.left_H + item.right_H > 0).any()


def test_an_empty_text_is_refused() -> None:
    with pytest.raises(TextError, match="without a character"):
        read_units(network(), IDS[:0])
