"""An adaptive model's states: pieces, old states used again, lanes taken out; all bit for bit."""

import copy
import pickle

import numpy as np
import pytest
import torch

from charlm.errors import OptionError
from charlm.lm.interface import State, take
from charlm.mixing.adaptive import AdaptiveLM
from charlm.text.vocab import Vocab

VOCAB = Vocab.of("the cat's hat.\n")
IDS = torch.from_numpy(
    VOCAB.encode("the cat's hat.\nthe hat that the cat chases.\n".replace("chases", "has")).astype("int64")
)


def read(model: AdaptiveLM, ids_TB: torch.Tensor, state: State) -> tuple[torch.Tensor, State]:
    return model.logprobs(ids_TB, state)


two_kinds = pytest.mark.parametrize("trees", [1, 2])


@two_kinds
def test_whole_and_pieces_are_bit_equal_and_rows_sum_to_one(trees: int) -> None:
    model = AdaptiveLM(VOCAB, trained=IDS.numpy(), room=200, trees=trees)
    ids_TB = torch.stack([IDS, IDS.flip(0)], 1)
    ids_TB[5, 1] = -1
    whole_TBV, _ = read(model, ids_TB, model.initial_state(2))
    state, pieces = model.initial_state(2), []
    for piece in ids_TB.split([1, 9, 2, len(IDS) - 12]):
        logp_TBV, state = read(model, piece, state)
        pieces.append(logp_TBV)
    assert torch.equal(torch.cat(pieces), whole_TBV)
    assert (whole_TBV.exp().sum(-1) - 1).abs().max() < 1e-12


def test_an_old_state_and_lanes_taken_twice_give_the_same_bits() -> None:
    model = AdaptiveLM(VOCAB, room=200)
    ids_TB = torch.stack([IDS, IDS.flip(0)], 1)
    _, old = read(model, ids_TB[:20], model.initial_state(2))
    first_TBV, _ = read(model, ids_TB[20:], old)
    read(model, ids_TB[:7], model.initial_state(2))
    again_TBV, _ = read(model, ids_TB[20:], old)
    assert torch.equal(first_TBV, again_TBV)
    lanes = torch.tensor([1, 0, 1])
    taken_TBV, _ = read(model, ids_TB[20:, lanes], take(old, lanes))
    assert torch.equal(taken_TBV, first_TBV[:, lanes])


def test_a_copy_goes_on_from_the_states_of_its_model() -> None:
    model = AdaptiveLM(VOCAB, trained=IDS.numpy(), room=200)
    _, state = read(model, IDS[:20, None], model.initial_state(1))
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(read(twin, IDS[20:, None], state)[0], read(model, IDS[20:, None], state)[0])


def test_a_state_of_another_model_is_refused() -> None:
    one, other = AdaptiveLM(VOCAB, room=200), AdaptiveLM(VOCAB, room=200)
    ids_TB = IDS[:, None]
    _, state = read(one, ids_TB, one.initial_state(1))
    read(other, ids_TB, other.initial_state(1))
    with pytest.raises(OptionError, match="another model"):
        read(other, ids_TB, state)


@two_kinds
def test_hits_are_those_of_whole_rows(trees: int) -> None:
    model = AdaptiveLM(VOCAB, room=200, trees=trees)
    ids_TB = torch.stack([IDS, IDS.flip(0)], 1)
    logp_TB, hit_TB, _ = model.target_hits(ids_TB[:-1], ids_TB[1:], model.initial_state(2))
    logp_TBV, _ = read(model, ids_TB[:-1], model.initial_state(2))
    assert torch.equal(logp_TB, logp_TBV.gather(-1, ids_TB[1:, :, None])[..., 0])
    assert torch.equal(hit_TB, logp_TBV.argmax(-1) == ids_TB[1:])
    assert hit_TB.any()
    assert torch.equal(model.target_logprobs(ids_TB[:-1], ids_TB[1:], model.initial_state(2))[0], logp_TB)


@pytest.mark.parametrize("others", [0, 1])
def test_two_trees_give_the_mean_of_their_probabilities(others: int) -> None:
    models = [AdaptiveLM(VOCAB, room=200)] * others
    both, first = (AdaptiveLM(VOCAB, models, trained=IDS.numpy(), room=200, trees=trees) for trees in (2, 1))
    second = AdaptiveLM(VOCAB, models, trained=IDS.numpy(), room=200)
    second._plans = both._plans[1:]
    p_TBV, p1_TBV, p2_TBV = (read(m, IDS[:, None], m.initial_state(1))[0].exp() for m in (both, first, second))
    assert torch.allclose(p_TBV, (p1_TBV + p2_TBV) / 2, rtol=1e-13)
    assert not torch.allclose(p1_TBV, p2_TBV, rtol=1e-3)


def test_two_trees_take_unknown_symbols_and_an_old_state() -> None:
    model = AdaptiveLM(VOCAB, trained=IDS.numpy(), room=200, trees=2)
    ids_TB = IDS[:, None].clone()
    ids_TB[3] = ids_TB[11] = -1
    logp_TB, old = model.target_logprobs(ids_TB[:20], ids_TB[1:21], model.initial_state(1))
    assert logp_TB[2] == logp_TB[10] == 0
    first_TBV, _ = read(model, ids_TB[20:], old)
    for _ in range(3):
        read(model, ids_TB, model.initial_state(1))
    assert torch.equal(read(model, ids_TB[20:], old)[0], first_TBV)


@pytest.mark.parametrize("trees", [0, 3])
def test_other_numbers_of_trees_are_refused(trees: int) -> None:
    with pytest.raises(OptionError, match="one tree of decisions or two"):
        AdaptiveLM(VOCAB, trees=trees)


def test_symbols_that_are_frequent_in_the_training_part_take_few_decisions() -> None:
    trained = np.array([0] * 90 + [1, 2, 3, 4], dtype=np.int64)  # a is more than half of the text
    counted, even = (AdaptiveLM(Vocab.of("abcde"), trained=ids, room=100) for ids in (trained, trained[:0]))
    steppers = counted.stepper(), even.stepper()
    assert steppers[0] is not None
    assert steppers[1] is not None
    assert ~0 in steppers[0].child[0].tolist()
    assert ~0 not in steppers[1].child[0].tolist()


def test_copies_and_views_of_what_was_trained_give_the_same_bits() -> None:
    model = AdaptiveLM(VOCAB, trained=IDS.numpy(), room=200)
    ids_T1 = IDS.repeat(3)[:, None]  # enough for a copy of the whole memory
    first_T1V, _ = read(model, ids_T1, model.initial_state(1))  # in the memory that has read the training part
    for _ in range(4):  # fresh blocks, then one that was used
        again_T1V, _ = read(model, ids_T1, model.initial_state(1))
        assert torch.equal(again_T1V, first_T1V)
    state, pieces = model.initial_state(1), []
    for piece in ids_T1.split(5):  # so few that a view does
        logp_T1V, state = read(model, piece, state)
        pieces.append(logp_T1V)
    assert torch.equal(torch.cat(pieces), first_T1V)
    assert [memory.large for memory in model._live.values()] == [True, False]
