"""Whether this installation computes correctly: checks of seconds that compare charlm with something independent.

Well-known recurrent programs were published that ignored their state, or saw the characters that they had to predict;
each of these checks would have found it. The file stands above training because it looks at everything: cells, kernels,
windows, evaluation, checkpoints, sampling.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from charlm.checkpoint import load
from charlm.display import progress_bar
from charlm.info import machine
from charlm.lm.evaluate import evaluate
from charlm.lm.interface import SamplingRule
from charlm.ngrams.index import SuffixIndex
from charlm.ngrams.model import NGramLM
from charlm.nn.cells import BUILT_IN
from charlm.nn.kernels import BACKENDS
from charlm.nn.stack import Stack, copy_from_torch, to_torch
from charlm.recurrent import RNNConfig
from charlm.recurrent.model import CharRNN
from charlm.text.corpus import corpus_of_text
from charlm.text.splits import Split
from charlm.text.text import TextFacts
from charlm.training.language import Lanes, LanguageObjective

_TEXT = "the bell rang twice; the tide went out.\nwho heard it first, the abbess or the eel?\n" * 3


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How one check ended.

    Args:
        name: what was checked.
        problem: what was wrong, in one sentence; None where nothing was.
        seconds: how long it took.
    """

    name: str
    problem: str | None
    seconds: float


class _WrongError(Exception):
    """What a check found wrong."""


@dataclass(frozen=True, kw_only=True, repr=False)
class SelfCheck:
    """How all checks ended; made by `selfcheck`. Its `repr` is what `charlm selfcheck` prints.

    Args:
        outcomes: of each check.
        kernels: which kernels run the recurrent layers on a CPU, in a sentence.
    """

    outcomes: tuple[Outcome, ...]
    kernels: str

    @property
    def passed(self) -> bool:
        """Whether nothing was wrong."""
        return all(outcome.problem is None for outcome in self.outcomes)

    def __repr__(self) -> str:
        lines = [f"kernels: {self.kernels}"]
        for outcome in self.outcomes:
            mark = "ok   " if outcome.problem is None else "WRONG"
            lines.append(f"{mark}  {outcome.name}  ({outcome.seconds:.1f} s)")
            lines += [] if outcome.problem is None else [f"       {outcome.problem}"]
        return "\n".join(lines)

    def to_json(self) -> list[dict[str, Any]]:
        """What `charlm selfcheck --json` prints."""
        return [asdict(outcome) for outcome in self.outcomes]


def selfcheck(*, progress: bool | None = None) -> SelfCheck:
    """Runs every check of this installation.

    Args:
        progress: show a bar; None shows it on a terminal or in a notebook.
    """
    kernels, outcomes = machine().kernels, []  # first, as it refuses a wrong CHARLM_KERNELS
    with progress_bar(len(CHECKS), "checking", "check", show=progress) as bar:
        for outcome in run_checks():
            outcomes.append(outcome)
            bar.update()
    return SelfCheck(outcomes=tuple(outcomes), kernels=kernels)


def _demand(holds: bool, problem: str) -> None:
    if not holds:
        raise _WrongError(problem)


def run_checks() -> Iterator[Outcome]:
    """Runs every check and yields its outcome as soon as it is known; an unexpected error is an outcome too."""
    for name, check in CHECKS.items():
        begun = time.perf_counter()
        problem = None
        try:
            check(torch.Generator().manual_seed(0))
        except _WrongError as wrong:
            problem = str(wrong)
        except Exception as error:
            problem = f"{type(error).__name__}: {error}"
        yield Outcome(name=name, problem=problem, seconds=time.perf_counter() - begun)


def _model(cell: str, layers: int = 2) -> CharRNN:
    model = CharRNN(corpus_of_text(_TEXT).vocab, RNNConfig(model=cell, hidden=12, layers=layers))
    model.reset_parameters(torch.Generator().manual_seed(1))
    return model.double()


def _ids(count: int | None = None) -> Tensor:
    return torch.from_numpy(corpus_of_text(_TEXT).ids.astype(np.int64))[:count, None]


def _cells_equal_torch(generator: torch.Generator) -> None:
    for cell in BUILT_IN:
        stack = Stack(cell, inputs=5, hidden=7, layers=2).double()
        module = to_torch(stack)
        for parameter in module.parameters():
            nn.init.uniform_(parameter, -0.7, 0.7, generator=generator)
        copy_from_torch(stack, module)
        x = torch.randn(9, 3, 5, dtype=torch.float64, generator=generator)
        expected, _ = module(x)
        wanted = torch.autograd.grad(expected.square().sum(), dict(module.named_parameters())["weight_hh_l0"])[0]
        for backend in BACKENDS:
            stack.backend = backend
            y, _ = stack(x)
            error = float((y - expected).detach().abs().max())
            _demand(error < 1e-12, f"the {cell}'s outputs differ from torch.nn's by {error:.1e} with backend {backend}")
            found = torch.autograd.grad(y.square().sum(), stack.cell(0).weight_hh)[0]
            error = float((found - wanted).abs().max())
            _demand(
                error < 1e-10, f"the {cell}'s gradients differ from torch.nn's by {error:.1e} with backend {backend}"
            )


def _gradients_are_finite_differences(generator: torch.Generator) -> None:
    ids, targets = _ids(12), _ids(13)[1:]
    for cell in BUILT_IN:
        model = _model(cell)
        loss = F.nll_loss(model(ids, model.initial_state(1))[0][:, 0], targets[:, 0])
        loss.backward()  # type: ignore[no-untyped-call]
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None
            direction = torch.randn(parameter.shape, dtype=torch.float64, generator=generator)
            sides = []
            for sign in (1, -1):
                with torch.no_grad():
                    parameter.add_(direction, alpha=sign * 1e-5)
                    logp, _ = model.target_logprobs(ids, targets, model.initial_state(1))
                    parameter.add_(direction, alpha=-sign * 1e-5)
                sides.append(float(-logp.mean()))
            measured, derived = (sides[0] - sides[1]) / 2e-5, float((parameter.grad * direction).sum())
            close = abs(measured - derived) < 1e-6 * max(1.0, abs(derived))
            _demand(
                close, f"the gradient of {name} of the {cell} is {derived:.8f}, its finite difference {measured:.8f}"
            )


def _past_counts_and_future_does_not(generator: torch.Generator) -> None:
    ids = _ids(60)
    for cell in BUILT_IN:
        model = _model(cell)
        early, late = ids.clone(), ids.clone()
        early[30] = (early[30] + 1) % len(model.vocab)
        late[31:] = (late[31:] + 1) % len(model.vocab)
        rows = [_read(model, text) for text in (ids, early, late)]
        _demand(torch.equal(rows[0][:31], rows[2][:31]), f"the {cell} sees characters that come later")
        _demand(torch.equal(rows[0][:30], rows[1][:30]), f"the {cell} sees characters that come later")
        _demand(bool((rows[0][31:34] != rows[1][31:34]).any(-1).all()), f"the {cell} ignores what it has read before")
        _demand(not torch.equal(rows[0][30], rows[1][30]), f"the {cell} ignores the character that it reads")


def _read(model: CharRNN, ids: Tensor, pieces: tuple[int, ...] = ()) -> Tensor:
    state, rows = model.initial_state(ids.shape[1]), []
    with torch.no_grad():
        for piece in torch.tensor_split(ids, pieces):
            logp, state = model.logprobs(piece, state)
            rows.append(logp)
    return torch.cat(rows)


def _whole_is_its_pieces(generator: torch.Generator) -> None:
    for cell in BUILT_IN:
        model, ids = _model(cell), _ids(80)
        error = float((_read(model, ids) - _read(model, ids, (1, 17, 50))).abs().max())
        _demand(error < 1e-12, f"the {cell} loses its state between two pieces of a text (off by {error:.1e})")


def _windows_ask_for_the_next_character(generator: torch.Generator) -> None:
    count = 103
    lanes = Lanes(np.arange(count), np.array([[0, count]]), lanes=4, window=7)
    for epoch in range(2):
        seen: list[int] = []
        for number in range(lanes.windows_per_epoch):
            window = lanes.window_at(epoch, number)
            inside = window.targets_TB >= 0
            _demand(
                bool((window.targets_TB[inside] == window.inputs_TB[inside] + 1).all()),
                "a target is not the next character",
            )
            seen += window.targets_TB[inside].tolist()
        _demand(sorted(seen) == list(range(1, count)), "an epoch does not use every target exactly once")


def _training_carries_its_state(generator: torch.Generator) -> None:
    corpus = corpus_of_text(_TEXT)
    for cell in BUILT_IN:
        model = _model(cell)
        lanes = Lanes(corpus.ids, corpus.documents, lanes=1, window=20)
        task = LanguageObjective(model, lanes, corpus.ids, corpus.documents)
        with torch.no_grad():
            pieces = [task.loss(step) for step in range(task.steps_per_epoch)]
        trained = sum(float(loss) * n for loss, n in pieces) / sum(n for _, n in pieces)
        read = evaluate(model, corpus.ids, corpus.documents).nats
        by_hand = float(-_read(model, _ids()[:-1]).gather(-1, _ids()[1:, :, None]).mean())
        _demand(abs(read - by_hand) < 1e-10, f"evaluation gives {read:.6f} nats where the rows add up to {by_hand:.6f}")
        _demand(
            abs(trained - by_hand) < 1e-10, f"training loses the {cell}'s state: {trained:.6f}, not {by_hand:.6f} nats"
        )


def _first_loss_is_near_ln_v(generator: torch.Generator) -> None:
    corpus = corpus_of_text(_TEXT)
    for cell in BUILT_IN:
        nats = evaluate(_model(cell), corpus.ids, corpus.documents).nats
        expected = math.log(len(corpus.vocab))
        _demand(
            abs(nats - expected) < 0.3, f"an untrained {cell} has {nats:.3f} nats; knowing nothing is {expected:.3f}"
        )


def _saved_is_loaded(generator: torch.Generator) -> None:
    corpus = corpus_of_text(_TEXT)
    for cell in BUILT_IN:
        model = _model(cell).float()
        with tempfile.TemporaryDirectory() as name:
            model.source = TextFacts.of(corpus, Split())
            model.write_to(Path(name))
            again = load(name, device="cpu")
        assert isinstance(again, CharRNN)
        again.stack.backend = model.stack.backend  # a loaded model has the fastest one, whose last bits are others
        _demand(torch.equal(_read(model, _ids()), _read(again, _ids())), f"a saved and loaded {cell} is another model")


def _sampler_follows_the_distribution(generator: torch.Generator) -> None:
    streams = 4000
    for cell in BUILT_IN:
        model = _model(cell).float()
        model.head.linear.weight.data.mul_(4)
        start = torch.zeros(streams, dtype=torch.int64)
        noise = torch.rand(1, streams, dtype=torch.float64, generator=generator)
        for rule in (SamplingRule(), SamplingRule(temperature=0.5, top_k=5)):
            drawn, _, _ = model.generate(start, model.initial_state(streams), 1, rule, noise)
            p = rule.probabilities(_read(model, torch.zeros(1, 1, dtype=torch.int64))[0])[0]
            expected = p * streams
            counts = torch.bincount(drawn[0], minlength=len(p))
            _demand(int(counts[p == 0].sum()) == 0, f"the {cell}'s sampler draws what its rule leaves out")
            common = expected >= 5
            statistic = float(((counts - expected)[common] ** 2 / expected[common]).sum())
            degrees = max(1, int(common.sum()) - 1)
            limit = degrees + 5 * math.sqrt(2 * degrees)
            _demand(
                statistic < limit, f"the {cell}'s sampler is off: chi-square {statistic:.1f} where {limit:.1f} is much"
            )


def _counting_by_hand(generator: torch.Generator) -> None:
    corpus = corpus_of_text("abracadabra")
    index = SuffixIndex.build(corpus.ids, corpus.documents, symbols=5)
    model = NGramLM(vocab=corpus.vocab, index=index, order=1)
    expected = (2 * math.log(2) + 2 * math.log(4)) / 10  # after a: b b c d; nothing else is uncertain
    nats = evaluate(model, corpus.ids, corpus.documents).nats
    _demand(abs(nats - expected) < 1e-12, f"counting gives abracadabra {nats:.6f} nats, by hand it is {expected:.6f}")


CHECKS: dict[str, Callable[[torch.Generator], None]] = {
    "cells equal torch.nn": _cells_equal_torch,
    "gradients equal finite differences": _gradients_are_finite_differences,
    "the past counts, the future does not": _past_counts_and_future_does_not,
    "a text is its pieces": _whole_is_its_pieces,
    "windows ask for the next character": _windows_ask_for_the_next_character,
    "training carries its state": _training_carries_its_state,
    "the first loss is near ln V": _first_loss_is_near_ln_v,
    "saved and loaded are bit-equal": _saved_is_loaded,
    "the sampler follows the distribution": _sampler_follows_the_distribution,
    "counting agrees with arithmetic by hand": _counting_by_hand,
}
"""What `charlm selfcheck` runs, by name."""
