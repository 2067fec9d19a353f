"""Heads and losses against arithmetic by hand and finite differences."""

import math
from collections import Counter

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from charlm.nn.heads import DistributionHead, Grams, RecentGrams, ScoreHead, distribution_losses, score_losses


def test_a_score_is_the_sigmoid_of_a_weighted_sum() -> None:
    head = ScoreHead(3).double()
    head.linear.weight.data = torch.tensor([[0.5, -1.0, 2.0]]).double()
    head.linear.bias.data = torch.tensor([0.25]).double()
    x = torch.tensor([[1.0, 2.0, 0.5], [0.0, 0.0, 0.0]]).double()
    expected = [1 / (1 + math.exp(-(0.5 - 2 + 1 + 0.25))), 1 / (1 + math.exp(-0.25))]
    assert head(x).tolist() == pytest.approx(expected, abs=1e-15)
    assert head(x.view(2, 1, 3)).shape == (2, 1)


@pytest.mark.parametrize("target", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("logit", [-3.0, 0.0, 1.5])
def test_losses_of_scores_by_hand(logit: float, target: float) -> None:
    s = 1 / (1 + math.exp(-logit))
    z, t = torch.tensor([logit], dtype=torch.float64), torch.tensor([target], dtype=torch.float64)
    entropy = -target * math.log(s) - (1 - target) * math.log(1 - s)
    assert score_losses(z, t).item() == pytest.approx(entropy, abs=1e-14)
    assert score_losses(z, t, "squared").item() == pytest.approx((s - target) ** 2, abs=1e-14)


def test_losses_of_extreme_logits_are_finite_and_so_are_their_gradients() -> None:
    z = torch.tensor([-1000.0, 1000.0, -1000.0, 1000.0], requires_grad=True)
    losses = score_losses(z, torch.tensor([0.0, 1.0, 1.0, 0.0]))
    assert losses.tolist() == [0.0, 0.0, 1000.0, 1000.0]
    (gradient,) = torch.autograd.grad(losses.sum(), z)
    assert gradient.tolist() == [0.0, 0.0, -1.0, 1.0]  # s - t


def test_losses_of_distributions_by_hand() -> None:
    p = torch.tensor([[0.2, 0.3, 0.5], [0.6, 0.3, 0.1]], dtype=torch.float64)
    assert distribution_losses(p.log(), torch.tensor([2, 0])).tolist() == pytest.approx(
        [-math.log(0.5), -math.log(0.6)]
    )
    soft = torch.tensor([[0.5, 0.5, 0.0], [0.6, 0.3, 0.1]], dtype=torch.float64)
    divergence = 0.5 * math.log(0.5 / 0.2) + 0.5 * math.log(0.5 / 0.3)
    assert distribution_losses(p.log(), soft).tolist() == pytest.approx([divergence, 0.0], abs=1e-15)
    one_hot = torch.eye(3).double()[torch.tensor([2, 0])]  # then both losses are one
    assert torch.allclose(distribution_losses(p.log(), one_hot), distribution_losses(p.log(), torch.tensor([2, 0])))


@pytest.mark.parametrize("loss", ["cross-entropy", "squared", "labels", "soft"])
def test_gradients_by_finite_differences(loss: str) -> None:
    torch.manual_seed(3)
    head: nn.Module = ScoreHead(4).double() if loss in ("cross-entropy", "squared") else DistributionHead(4, 3).double()
    targets = {"labels": torch.tensor([2, 0]), "soft": torch.tensor([[0.2, 0.8, 0.0], [0.1, 0.3, 0.6]]).double()}

    def total(x: Tensor) -> Tensor:
        if isinstance(head, ScoreHead):
            return score_losses(head.logits(x), torch.tensor([0.3, 1.0]).double(), loss).sum()
        return distribution_losses(head(x), targets[loss]).sum()

    assert torch.autograd.gradcheck(total, (torch.randn(2, 4).double().requires_grad_(),))


def test_fresh_heads_begin_undecided_and_come_from_their_generator() -> None:
    one, two = ScoreHead(400), ScoreHead(400)
    for head in (one, two):
        head.reset_parameters(torch.Generator().manual_seed(9))
    assert torch.equal(one.linear.weight, two.linear.weight)
    assert one.linear.weight.abs().max() <= 1 / 20
    assert one(torch.zeros(1, 400)).item() == 0.5


def test_grams_are_sums_over_the_strings_of_each_text() -> None:
    """Equal strings have equal weights: the map of a text is the sum over a Counter of its strings."""
    grams = Grams(1 << 20, 1)
    nn.init.normal_(grams.weight)
    texts = [[0, 1, 2, 0], [1], [3, -1, 0, 1, 2]]
    ids_TB = torch.full((5, 3), -1)
    for lane, text in enumerate(texts):
        ids_TB[: len(text), lane] = torch.tensor(text)
    found = grams(ids_TB, torch.tensor([4, 1, 5]))
    for lane, text in enumerate(texts):
        assert found[lane].item() == pytest.approx(grams(torch.tensor(text)[:, None], None).item(), abs=1e-5)
    counts = [Counter(tuple(w[i : i + n]) for n in (1, 2, 3) for i in range(len(w) - n + 1))
              for w in (["<", *text, "<"] for text in texts)]  # fmt: skip
    with torch.no_grad():
        grams.weight.fill_(1.0)
    assert grams(ids_TB, torch.tensor([4, 1, 5]))[:, 0].tolist() == [sum(each.values()) for each in counts]


@pytest.mark.parametrize("order", [1, 4, 9])
def test_grams_of_an_order_weigh_each_string_up_to_it(order: int) -> None:
    grams = Grams(1 << 20, 1, order=order)
    nn.init.ones_(grams.weight)
    framed = 2 + 3  # two boundaries and three characters
    found = grams(torch.tensor([[5], [6], [7]]), None).item()
    assert found == sum(framed + 1 - length for length in range(1, min(order, framed) + 1))


def test_dropped_grams_keep_the_mean_of_the_sum_and_come_from_the_generator() -> None:
    grams = Grams(1 << 12, 1, order=2, dropout=0.5)
    nn.init.ones_(grams.weight)
    ids_TB = torch.zeros(20, 400, dtype=torch.int64)  # 22 + 21 strings a text
    once, again = (grams(ids_TB, None, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(once, again)
    assert set((once % 2).flatten().tolist()) == {0.0}  # each string that is kept counts twice
    deviation = (43 / 400) ** 0.5  # of the mean of 400 sums of 43 strings, each 0 or 2
    assert abs(once.mean().item() - 43) < 4 * deviation
    assert grams.eval()(ids_TB, None).unique().tolist() == [43.0]


# -- strings of the last characters -----------------------------------------------------------------------------------

ROWS, SYMBOLS = 97, 5


def recent_grams(order: int) -> RecentGrams:
    grams = RecentGrams(ROWS, SYMBOLS, order=order).double()
    nn.init.normal_(grams.weight[:-1], generator=torch.Generator().manual_seed(order))
    return grams


def strings_of(read: list[int], order: int) -> list[int]:
    """The rows of the strings that end with the last character read, hashed with Python's integers."""
    rows = []
    for length in range(2, order + 1):
        string = read[-length:]
        if len(string) == length and min(string) >= 0:
            key = string[-1] + 2
            for character in string[-2::-1]:
                key = (key * 1_000_003 + character + 2) % (2**31 - 1)
            rows.append(key % ROWS)
    return rows


def texts(seed: int = 0) -> tuple[Tensor, Tensor]:
    """Characters [T, B], some of them unknown, and where lanes forget what they have read."""
    draw = np.random.default_rng(seed)
    ids_TB = torch.from_numpy(np.where(draw.random((40, 3)) < 0.1, -1, draw.integers(0, SYMBOLS, (40, 3))))
    return ids_TB, torch.from_numpy(draw.random((40, 3)) < 0.15)


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("order", [2, 3, 5, 16])
def test_recent_strings_add_their_rows_as_a_loop_over_strings_does(order: int, reset: bool) -> None:
    grams = recent_grams(order)
    ids_TB, resets_TB = texts(order)
    added_TBV, after_BN = grams(ids_TB, grams.initial_state(3), resets_TB if reset else None)
    assert (added_TBV.abs().sum(-1) > 0).float().mean() > 0.3
    for lane in range(3):
        read: list[int] = []
        for t in range(40):
            read = [*([] if reset and resets_TB[t, lane] else read), int(ids_TB[t, lane])]
            expected = sum((grams.weight[row] for row in strings_of(read, order)), torch.zeros(SYMBOLS).double())
            assert torch.allclose(added_TBV[t, lane], expected, atol=1e-12), (t, lane)
        assert after_BN[lane].tolist() == [-1] * (order - 1 - len(read)) + read[1 - order :]


@pytest.mark.parametrize("sizes", [[1] * 40, [2, 0, 14, 24], [40]])
def test_recent_strings_go_on_over_pieces(sizes: list[int]) -> None:
    grams = recent_grams(5)
    ids_TB, resets_TB = texts()
    whole, last = grams(ids_TB, grams.initial_state(3), resets_TB)
    state, pieces = grams.initial_state(3), []
    for ids, resets in zip(ids_TB.split(sizes), resets_TB.split(sizes), strict=True):
        added, state = grams(ids, state, resets)
        pieces.append(added)
    assert torch.equal(torch.cat(pieces), whole)
    assert torch.equal(state, last)
    assert grams(ids_TB[:, :0], grams.initial_state(0))[0].shape == (40, 0, SYMBOLS)


def test_the_gradient_of_rows_is_that_of_a_sum_of_dense_embeddings() -> None:
    grams = recent_grams(4)
    ids_TB, resets_TB = texts()
    dense = nn.Embedding(ROWS + 1, SYMBOLS, padding_idx=ROWS).double()
    dense.weight.data.copy_(grams.weight.data)
    places_TBN, _ = grams.places(ids_TB, grams.initial_state(3), resets_TB)
    judge = torch.randn(40, 3, SYMBOLS, generator=torch.Generator().manual_seed(1)).double()
    added, _ = grams(ids_TB, grams.initial_state(3), resets_TB)
    (judge * added.log_softmax(-1)).sum().backward()
    (judge * dense(places_TBN).sum(2).log_softmax(-1)).sum().backward()
    assert grams.weight.grad is not None
    assert dense.weight.grad is not None
    assert grams.weight.grad.is_sparse
    found = grams.weight.grad.to_dense()
    assert torch.allclose(found, dense.weight.grad, atol=1e-12)
    assert found[-1].tolist() == [0.0] * SYMBOLS  # that of strings with an unknown character
    read = set(grams.weight.grad.coalesce().indices()[0].tolist())
    assert read - {ROWS} == set(places_TBN.unique().tolist()) - {ROWS}
