"""The n-gram language model: counts, an estimator, and the last characters as its state.

Sampling from maximum likelihood needs no distribution: the occurrences of a history are neighbours in the sorted order
of the index, and sorted by what follows, so the occurrence number floor(noise · total) is the draw that inverts the
cumulative distribution. Axes: T steps, B lanes, V symbols, H histories, P places in the sorted order.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from charlm.errors import CheckpointError, OptionError
from charlm.lm.evaluate import Row
from charlm.lm.interface import SamplingRule, State, pick_targets
from charlm.lm.model import TextModel
from charlm.lm.sampling import NextCharacter
from charlm.ngrams.counted import Contexts, Estimator, check_order
from charlm.ngrams.estimators import make_estimator, ngram_rows
from charlm.ngrams.index import SuffixIndex
from charlm.ngrams.levels import Counts, pick
from charlm.ngrams.suffixes import fingerprints
from charlm.ngrams.tables import CountTables
from charlm.text.splits import Spans, slices
from charlm.text.vocab import Ids, Vocab

NOTHING = -2
"""In a state's history: no character has been read there yet."""


class NGramLM(TextModel):
    """Counted characters as a language model.

    The state is {"history": int64 [B, order]}, the last characters read, `NOTHING` in front at the start of a
    text. With fewer than `order` characters read, the model uses the shorter history that is there.

    Args:
        vocab: of the text.
        index: of its training part.
        order: characters of history, 0 to 32.
        estimator: how counts become probabilities; a name stands for that estimator with its default parameters.

    >>> vocab = Vocab.of("abracadabra")
    >>> index = SuffixIndex.build(vocab.encode("abracadabra"), np.array([[0, 11]]), symbols=len(vocab))
    >>> model = NGramLM(vocab=vocab, index=index, order=1)
    >>> logp_TBV, state = model.logprobs(torch.tensor([[0]]), model.initial_state(1))
    >>> logp_TBV.exp().tolist()  # after a: b twice, c once, d once
    [[[0.0, 0.5, 0.25, 0.25, 0.0]]]
    """

    kind = "ngram"
    is_baseline = True

    def __init__(self, *, vocab: Vocab, index: Counts, order: int, estimator: Estimator | str = "none") -> None:
        if isinstance(estimator, str):
            estimator = make_estimator(estimator, index, order)
        if index.symbols != len(vocab):
            raise OptionError(f"the index is for {index.symbols} symbols, the vocabulary has {len(vocab)}")
        if estimator.index is not index or estimator.order != order:
            raise OptionError(
                f"the estimator is for order {estimator.order} of its own index: make it for this model's"
            )
        self.vocab, self.index, self.order, self.estimator = vocab, index, order, estimator

    def initial_state(self, lanes: int) -> State:
        """See `LanguageModel.initial_state`."""
        return {"history": torch.full((lanes, self.order), NOTHING, dtype=torch.int64)}

    def logprobs(self, ids_TB: Tensor, state: State) -> tuple[Tensor, State]:
        """See `LanguageModel.logprobs`; float64."""
        contexts, after = self._read(ids_TB, state)
        logp = _log(self.estimator.rows(contexts))
        return torch.from_numpy(logp).reshape(*ids_TB.shape, len(self.vocab)), after

    def target_logprobs(self, ids_TB: Tensor, targets_TB: Tensor, state: State) -> tuple[Tensor, State]:
        """See `LanguageModel.target_logprobs`; float64."""
        contexts, after = self._read(ids_TB, state)
        logp = _log(self.estimator.targets(contexts, targets_TB.reshape(-1).numpy()))
        return torch.from_numpy(logp).reshape(ids_TB.shape), after

    def _read(self, ids_TB: Tensor, state: State) -> tuple[Contexts, State]:
        """The contexts after each id, step by step and lane by lane, and the next state."""
        steps = len(ids_TB)
        text_BL = np.concatenate([state["history"].numpy(), ids_TB.numpy().T], axis=1)
        return self._contexts(text_BL, steps), {"history": torch.from_numpy(text_BL[:, steps:].copy())}

    def _contexts(self, text_BL: NDArray[np.int64], steps: int = 1) -> Contexts:
        """The contexts after each of the last symbols of the lanes, which begin with `NOTHING` where they are short."""
        nothing_B = (text_BL == NOTHING).sum(1, keepdims=True)
        age_BL = np.arange(1, text_BL.shape[1] + 1) - nothing_B
        nodes = self.index.levels.nodes(text_BL.reshape(-1), age_BL.reshape(-1), self.order)
        places_TB = np.arange(text_BL.size).reshape(text_BL.shape)[:, text_BL.shape[1] - steps :].T
        return Contexts(nodes=nodes, read_N=age_BL.reshape(-1)).some(places_TB.reshape(-1))

    def generate(
        self, ids_B: Tensor, state: State, steps: int, rule: SamplingRule, noise_TB: Tensor
    ) -> tuple[Tensor, Tensor, State]:
        """See `LanguageModel.generate`.

        Where maximum likelihood is undefined the longest suffix of the history that was seen takes its place,
        in the drawn symbols and in their log-probabilities.
        """
        text_BL = np.concatenate([state["history"].numpy(), ids_B.numpy()[:, None]], axis=1)
        plain = self.estimator.name == "none" and rule == SamplingRule()
        done, contexts = 0, self._contexts(text_BL)
        pieces: list[NDArray[np.float64]] = [np.zeros((0, len(ids_B)))]
        while done < steps:
            if plain and _can_draw(self.estimator, contexts):
                ids_TB, logp_TB = _draw_occurrences(self.estimator, contexts, noise_TB[done:steps].numpy())
                text_BL = np.concatenate([text_BL, ids_TB.T], axis=1)
                contexts = self._contexts(text_BL[:, -self.order - 1 :])
            else:
                id_B, logp_B = self._draw(contexts, rule, noise_TB[done])
                text_BL = np.concatenate([text_BL, id_B[:, None]], axis=1)
                contexts, logp_TB = self._step(contexts, id_B), logp_B[None]
            pieces.append(logp_TB)
            done += len(logp_TB)
        ids_TB = text_BL[:, self.order + 1 :].T
        read_BL = text_BL[:, steps : steps + self.order]
        logp = torch.from_numpy(np.concatenate(pieces))
        return torch.from_numpy(ids_TB.copy()), logp, {"history": torch.from_numpy(read_BL.copy())}

    def _draw(
        self, contexts: Contexts, rule: SamplingRule, noise_B: Tensor
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """One symbol a lane and its log-probability."""
        logp_BV = torch.from_numpy(_log(self.estimator.rows(contexts, generating=True)))
        id_B = rule.draw(logp_BV, noise_B)
        return id_B.numpy(), pick_targets(logp_BV, id_B).numpy()

    def _step(self, contexts: Contexts, id_B: NDArray[np.int64]) -> Contexts:
        """The contexts after one more symbol."""
        nodes = [np.zeros(len(id_B), dtype=np.int32)]
        for order in range(self.order):
            nodes.append(self.index.levels[order].child(contexts.nodes[order], id_B))
        return Contexts(nodes=nodes, read_N=contexts.read_N + 1)

    def next_distribution(self, history_ids: Sequence[int]) -> tuple[list[int], list[tuple[int, float, int]]]:
        """What follows a history, for a person to read.

        Args:
            history_ids: the characters before; the last `order` of them count, -1 for an unknown one.

        Returns:
            The history that was used (its longest suffix, up to `order`, that was ever followed by anything),
            and (id, probability, count after that history) by falling probability, then id. Maximum
            likelihood lists what was seen, the others every symbol.
        """
        history = [int(id) for id in history_ids][max(0, len(history_ids) - self.order) :]
        used = history
        while not (followers := self.index.followers(used)):
            used = used[1:]
        if self.estimator.name == "none":
            total = sum(count for _, count in followers)
            found = [(id, count / total, count) for id, count in followers]
        else:
            counts = dict(followers)
            contexts = self._contexts(np.array([[NOTHING, *history]]))
            found = [(id, p, counts.get(id, 0)) for id, p in enumerate(self.estimator.rows(contexts)[0].tolist())]
        return used, sorted(found, key=lambda item: (-item[1], item[0]))

    def rows(self, ids: Ids, spans: Spans, orders: Sequence[int], **options: Any) -> Iterator[Row]:
        """What this index and kind of estimator say about a text at several orders; see `ngram_rows`."""
        chosen = {order: self.estimator.parameters() for order in orders}
        return ngram_rows(self.index, self.vocab, self.estimator.name, orders, ids, spans, parameters=chosen, **options)

    def __repr__(self) -> str:
        events = len(self.index.levels[self.order].count_E)
        return f"NGramLM(order {self.order}, {self.smoothing}, {len(self.vocab)} symbols, {events:,} n-grams)"

    @property
    def title(self) -> str:
        """The estimator and its order."""
        return f"{self.estimator.title}, order {self.order}"

    @property
    def smoothing(self) -> str:
        """The estimator by the name that `--smoothing` takes."""
        return self.estimator.name

    def next(self, history: str) -> NextCharacter:
        """See `TextModel.next`; with the counts, and after as much of the history as was ever followed by anything."""
        if not history:
            raise OptionError("name a history of at least one character, such as ello")
        used, found = self.next_distribution(self.vocab.encode(history).tolist())
        p_V = np.zeros(len(self.vocab))
        p_V[[id for id, *_ in found]] = [p for _, p, _ in found]
        return NextCharacter(
            history=history,
            used=self.vocab.decode(used),
            vocab=self.vocab,
            probabilities=p_V,
            counts={id: count for id, _, count in found},
            listed=[id for id, *_ in found],
        )

    def shape(self) -> dict[str, Any]:
        """See `TextModel.shape`."""
        return self.estimator.describe()

    def write_files(self, directory: Path) -> dict[str, Any]:
        """Writes the counts; returns their checksums."""
        self.index.save(directory)
        return {"files": fingerprints(directory)}

    @classmethod
    def read(cls, directory: Path, config: Any, vocab: Vocab) -> NGramLM:
        """Opens what `write` wrote.

        Args:
            directory: with the index's files, which are memory-mapped.
            config: what `config` gave.
            vocab: the vocabulary kept with them.

        Raises:
            CheckpointError: a file that is missing or broken, or a configuration that does not fit it.
        """
        keys = {"order", "smoothing", "parameters", "characters"}
        if not isinstance(config, Mapping) or set(config) - {"tables"} != keys:
            raise CheckpointError("a stored n-gram model has the keys order, smoothing, parameters and characters")
        order, name, parameters = config["order"], config["smoothing"], config["parameters"]
        if not isinstance(name, str) or not isinstance(parameters, Mapping):
            raise CheckpointError("a stored n-gram model names its smoothing and has its parameters by name")
        index: Counts
        if config.get("tables"):
            index = CountTables.load(directory, symbols=len(vocab), order=check_order(order))
        else:
            index = SuffixIndex.load(directory, symbols=len(vocab))
        if len(index) != config["characters"]:
            raise CheckpointError(
                f"the index in {directory} has {len(index):,} characters, not {config['characters']!r}"
            )
        try:
            estimator = make_estimator(name, index, order, **{str(key): parameters[key] for key in parameters})
        except OptionError as error:
            raise CheckpointError(f"the n-gram model in {directory} cannot be made: {error}") from None
        return cls(vocab=vocab, index=index, order=order, estimator=estimator)


def _log(p: NDArray[np.float64]) -> NDArray[np.float64]:
    with np.errstate(divide="ignore"):
        return np.log(p)


_FEW = 16  # lanes followed one by one


def _can_draw(estimator: Estimator, contexts: Contexts) -> bool:
    """Whether every lane has read a full history, and one that was followed by something."""
    order = estimator.order
    if isinstance(estimator.index, CountTables):
        return False  # tables know of no places
    if order == 0 and estimator.levels.context_V.any():
        return False  # a symbol that is context alone has a place, and is no event
    full = bool((contexts.read_N >= order).all())
    return full and bool((pick(estimator.levels[order].total_H, contexts.nodes[order]) > 0).all())


def _draw_occurrences(
    estimator: Estimator, contexts: Contexts, noise_TB: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Draws symbols until the noise is used up or a lane comes to a history that nothing follows.

    Args:
        estimator: maximum likelihood.
        contexts: for which `_can_draw` holds.
        noise_TB: numbers in [0, 1).

    Returns:
        The ids and log-probabilities of the steps made, at least one where there is noise; each [steps, B].
    """
    level, links = estimator.levels[estimator.order], _links(estimator)
    walk = _walk_one_by_one if noise_TB.shape[1] <= _FEW else _walk
    place_TB = walk(links, contexts.nodes[estimator.order], noise_TB)
    event_TB = np.searchsorted(level.place_E, place_TB, side="right") - 1
    logp_TB = np.log(level.count_E[event_TB] / level.total_H[level.history_E[event_TB]])
    return level.id_E[event_TB].astype(np.int64), logp_TB


_Links = tuple[NDArray[np.float64], NDArray[np.int32], NDArray[np.int32]]
"""For each history, how many of its occurrences are followed by anything and the place of the first; for each place in
the sorted order, the history one symbol later, which is arbitrary where nothing follows."""


def _links(estimator: Estimator) -> _Links:
    """The links of an estimator, which are made once and kept with it."""
    kept: _Links | None = estimator.__dict__.get("_links")
    if kept is None:
        level, order = estimator.levels[estimator.order], estimator.order
        after_P = np.zeros(len(estimator.index), dtype=np.int32)
        if order:
            after_E = estimator.levels.suffix(order)
            after_P[slices(level.place_E, level.count_E)] = np.repeat(after_E, level.count_E)
        place_H = np.append(level.place_E, 0)[level.first_H[:-1]].astype(np.int32)
        kept = estimator.__dict__["_links"] = (level.total_H.astype(np.float64), place_H, after_P)
    return kept


def _walk(links: _Links, node_B: NDArray[np.int32], noise_TB: NDArray[np.float64]) -> NDArray[np.int32]:
    """The places drawn, [steps, B]."""
    total_H, place_H, after_P = links
    place_TB = np.empty(noise_TB.shape, dtype=np.int32)
    for step, noise_B in enumerate(noise_TB):
        total_B = total_H[node_B]
        if not total_B.all():
            return place_TB[:step]
        number_B = (noise_B * total_B).astype(np.int32)
        place_B = np.add(place_H[node_B], number_B, out=place_TB[step])
        node_B = after_P[place_B]
    return place_TB


def _walk_one_by_one(links: _Links, node_B: NDArray[np.int32], noise_TB: NDArray[np.float64]) -> NDArray[np.int32]:
    """The same, lane by lane: quicker for a few."""
    total, place, after = (array.data for array in links)  # items of a view come quicker than an array's
    steps, lanes = len(noise_TB), []
    for node, noise in zip(node_B.tolist(), noise_TB.T.tolist(), strict=True):
        drawn: list[int] = []
        for number in noise[:steps]:
            if not total[node]:
                break
            drawn.append(place[node] + int(number * total[node]))
            node = after[drawn[-1]]  # noqa: PLW2901
        steps = len(drawn)
        lanes.append(drawn)
    return np.array([drawn[:steps] for drawn in lanes], dtype=np.int32).T
