"""Models of whole sequences that are no networks: counted, linear, trees.

They stand beside the network in every fit. Each is fitted on the training part alone; what it has to choose (an order,
a penalty, a number of trees) it chooses on the validation part. All are stored as plain tensors.

N sequences, S symbols or steps of all sequences end to end, V classes, G features, K outputs.
"""

from __future__ import annotations

import abc
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from charlm.errors import CheckpointError
from charlm.ngrams.counted import Contexts, Estimator
from charlm.ngrams.estimators import make_estimator
from charlm.ngrams.index import SuffixIndex
from charlm.sequences import Sequences
from charlm.sequences.metrics import Floats, mean_nats, softmax, summary_features


class Baseline(abc.ABC):
    """A fitted model that gives each whole sequence a probability for every class."""

    name: ClassVar[str]

    @classmethod
    @abc.abstractmethod
    def fit(cls, train: Sequences, shares_NV: Floats, valid: Sequences | None, valid_NV: Floats | None) -> Self:
        """Fits it.

        Args:
            train, shares_NV: sequences, and the share of each class in the label of each.
            valid, valid_NV: those that options are chosen on; None takes the usual options.
        """

    @abc.abstractmethod
    def say(self, inputs: Sequences) -> Floats:
        """Probabilities [N, V]."""

    @abc.abstractmethod
    def tensors(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """What is stored: tensors, and a strict JSON value."""

    @classmethod
    @abc.abstractmethod
    def read(cls, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> Self:
        """What `tensors` gave, as a model again."""


def _best(options: Sequence[Any], make: Callable[[Any], Any], valid: Sequences | None, valid_NV: Floats | None) -> Any:
    """The model with the least log loss on the validation part; without one the model of the middle option."""
    if valid is None or valid_NV is None:
        return make(options[len(options) // 2])
    models = [make(option) for option in options]
    return min(models, key=lambda model: mean_nats(model.say(valid), valid_NV))


def _weighted(shares_NV: Floats) -> tuple[NDArray[np.int64], NDArray[np.int64], Floats]:
    """Rows, classes and weights: a row for each class that has a share in its label."""
    rows, classes = np.nonzero(shares_NV)
    return rows, classes, shares_NV[rows, classes]


_ORDERS = (1, 2, 3, 4, 5)
_SHARPNESS = (0.3, 0.5, 0.7, 0.85, 1.0)


class Counted(Baseline):
    """A Kneser-Ney n-gram for each class, combined by Bayes' rule.

    P(class | text) ∝ P(class) P(text | class)^s, where P(text | class) is the product of the probabilities of all
    characters and of the end. The order and the sharpness s (1 is Bayes' rule, less makes it less sure) are chosen on
    the validation part. Every unknown character is one symbol of its own.

    Args:
        texts: of the training part.
        class_N: the class of each.
        symbols: how many characters there are.
        prior_V: the share of each class.
        order: characters of history.
        sharpness: s.
    """

    name = "counted"

    def __init__(
        self, texts: Sequences, class_N: NDArray[np.int64], symbols: int, prior_V: Floats, order: int, sharpness: float
    ) -> None:
        self.texts, self.class_N, self.symbols = texts, class_N, symbols
        self.prior_V, self.order, self.sharpness = prior_V, order, sharpness
        indexes = []
        for number in range(len(prior_V)):
            rows = torch.from_numpy(np.flatnonzero(class_N == number))
            ids, _, spans = self._framed(texts.take(rows) if len(rows) else None)
            context_N = np.ones(len(spans), dtype=bool)  # the boundary in front is context, never predicted
            indexes.append(SuffixIndex.build(ids, spans, symbols=symbols + 2, shared_N=context_N))
        self.estimators: list[Estimator] = [make_estimator("kneser-ney", index, order) for index in indexes]

    @classmethod
    def fit(cls, train: Sequences, shares_NV: Floats, valid: Sequences | None, valid_NV: Floats | None) -> Counted:
        """See `Baseline.fit`; a sequence is counted for the class with the largest share in its label."""
        symbols, prior_V = (
            int(train.values.max()) + 1,
            (shares_NV.sum(0) + 0.5) / (len(train) + 0.5 * shares_NV.shape[1]),
        )
        model = cls(train, shares_NV.argmax(1), symbols, prior_V, max(_ORDERS), 1.0)
        if valid is None or valid_NV is None:
            return model._of_order(3)

        def chosen(order: int) -> tuple[float, int, float]:
            twin = model._of_order(order)
            nats_NV = twin.nats(valid)
            return min((mean_nats(twin._bayes(nats_NV, s), valid_NV), order, s) for s in _SHARPNESS)

        _, order, sharpness = min(map(chosen, _ORDERS))
        return model._of_order(order, sharpness)

    def _of_order(self, order: int, sharpness: float = 1.0) -> Counted:
        """The same counts to another order."""
        twin = object.__new__(Counted)
        twin.__dict__ |= self.__dict__ | {"order": order, "sharpness": sharpness}
        twin.estimators = [make_estimator("kneser-ney", each.index, order) for each in self.estimators]
        return twin

    def _framed(self, texts: Sequences | None) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Texts end to end, each between two boundaries; the place of each symbol in its text; and the spans.

        Unknown characters are the symbol before the boundary's.
        """
        unknown, boundary = self.symbols, self.symbols + 1
        if texts is None:
            return np.array([boundary, boundary]), np.array([0, 1]), np.array([[0, 2]])
        lengths = texts.lengths.numpy() + 2
        ends = np.cumsum(lengths)
        spans = np.stack([ends - lengths, ends], 1)
        ids = np.full(int(ends[-1]), boundary, dtype=np.int64)
        inside = np.ones(len(ids), dtype=bool)
        inside[spans[:, 0]] = inside[ends - 1] = False
        values = texts.values.numpy()
        ids[inside] = np.where((values < 0) | (values >= self.symbols), unknown, values)
        return ids, np.arange(len(ids)) - np.repeat(spans[:, 0], lengths), spans

    def nats(self, inputs: Sequences) -> Floats:
        """−ln P(text | class), [N, V]."""
        ids, place, spans = self._framed(inputs)
        before = np.flatnonzero(np.append(place[1:] > 0, False))  # symbols that another one of their text follows
        found = []
        for estimator in self.estimators:
            nodes = estimator.levels.nodes(ids, place + 1, self.order)
            contexts = Contexts(nodes=[node[before] for node in nodes], read_N=place[before] + 1)
            nats = -np.log(np.maximum(estimator.targets(contexts, ids[before + 1]), 1e-300))
            found.append(np.add.reduceat(nats, spans[:, 0] - np.arange(len(spans))))
        return np.stack(found, 1)

    def _bayes(self, nats_NV: Floats, sharpness: float) -> Floats:
        return softmax(np.log(self.prior_V) - sharpness * nats_NV)

    def say(self, inputs: Sequences) -> Floats:
        """See `Baseline.say`."""
        return self._bayes(self.nats(inputs), self.sharpness)

    def tensors(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """See `Baseline.tensors`: the training texts, which are counted again when they are read."""
        held = {"ids": self.texts.values, "lengths": self.texts.lengths, "classes": torch.from_numpy(self.class_N)}
        held["prior"] = torch.from_numpy(self.prior_V)
        return held, {"symbols": self.symbols, "order": self.order, "sharpness": self.sharpness}

    @classmethod
    def read(cls, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> Counted:
        """See `Baseline.read`."""
        texts = Sequences(values=tensors["ids"], lengths=tensors["lengths"])
        prior, classes = tensors["prior"].numpy(), tensors["classes"].numpy()
        return cls(texts, classes, facts["symbols"], prior, facts["order"], facts["sharpness"])


_PENALTIES = (0.3, 1.0, 3.0)
_MOST_GRAMS = 1 << 18
_BASE = 0xF0000  # a plane of private characters, by which ids are strings for scikit-learn


class Linear(Baseline):
    """Logistic regression on how often each string of one to three characters occurs, boundaries included.

    Args:
        grams: the G strings, of private characters.
        weight_VG, bias_V: of the regression.
    """

    name = "linear"

    def __init__(self, grams: Sequence[str], weight_VG: Floats, bias_V: Floats) -> None:
        self.grams, self.weight_VG, self.bias_V = list(grams), weight_VG, bias_V
        self._counter = _counter(vocabulary={gram: number for number, gram in enumerate(grams)})

    @classmethod
    def fit(cls, train: Sequences, shares_NV: Floats, valid: Sequences | None, valid_NV: Floats | None) -> Linear:
        """See `Baseline.fit`; the penalty is chosen on the validation part."""
        from sklearn.linear_model import LogisticRegression

        counter = _counter(max_features=_MOST_GRAMS)
        counts = counter.fit_transform(_strings(train))
        grams = counter.get_feature_names_out().tolist()
        rows, classes, weights = _weighted(shares_NV)
        regression = LogisticRegression(max_iter=200, warm_start=True)

        def made(penalty: float) -> Linear:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that it could be a little nearer to the optimum
                regression.set_params(C=penalty).fit(counts[rows], classes, sample_weight=weights)
            weight_VG, bias_V = _of_all_classes(regression, shares_NV.shape[1])
            return cls(grams, weight_VG, bias_V)

        model: Linear = _best(_PENALTIES, made, valid, valid_NV)
        return model

    def say(self, inputs: Sequences) -> Floats:
        """See `Baseline.say`."""
        return softmax(self._counter.transform(_strings(inputs)) @ self.weight_VG.T + self.bias_V)

    def tensors(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """See `Baseline.tensors`."""
        return {"weight": torch.from_numpy(self.weight_VG), "bias": torch.from_numpy(self.bias_V)}, {
            "grams": self.grams
        }

    @classmethod
    def read(cls, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> Linear:
        """See `Baseline.read`."""
        return cls(facts["grams"], tensors["weight"].numpy(), tensors["bias"].numpy())


def _counter(**options: Any) -> Any:
    from sklearn.feature_extraction.text import CountVectorizer

    return CountVectorizer(analyzer="char", ngram_range=(1, 3), lowercase=False, dtype=np.float64, **options)


def _strings(texts: Sequences) -> list[str]:
    """Texts as strings of private characters between two boundaries."""
    whole = "".join(map(chr, (texts.values + (_BASE + 2)).tolist()))  # an unknown character, -1, is _BASE + 1
    starts, ends = texts.starts.tolist(), (texts.starts + texts.lengths).tolist()
    return [f"{chr(_BASE)}{whole[start:end]}{chr(_BASE)}" for start, end in zip(starts, ends, strict=True)]


def _of_all_classes(regression: Any, classes: int) -> tuple[Floats, Floats]:
    """Weights and biases of every class, also of one without a row, which is as good as impossible then."""
    weight, bias = regression.coef_, regression.intercept_
    if len(weight) == 1:  # two classes: the second one against the first
        weight, bias = np.concatenate([0 * weight, weight]), np.concatenate([0 * bias, bias])
    weight_VG, bias_V = np.zeros((classes, weight.shape[1])), np.full(classes, -20.0)
    weight_VG[regression.classes_], bias_V[regression.classes_] = weight, bias
    return weight_VG, bias_V


_ROUNDS = 200
_NODE = ("value", "feature_idx", "num_threshold", "left", "right", "is_leaf")


class Trees(Baseline):
    """Gradient-boosted trees (scikit-learn's histogram ones) on summary features of sequences of numbers.

    Args:
        start_K: the raw output before the first tree; K is 1 for two classes, else V.
        trees: the nodes of all trees, by the names of `_NODE`, end to end; a tree's children are counted within it.
        sizes: the nodes of each tree; trees follow each other round by round, output by output.
    """

    name = "trees"

    def __init__(self, start_K: Floats, trees: Mapping[str, NDArray[Any]], sizes: NDArray[np.int64]) -> None:
        self.start_K, self.trees, self.sizes = start_K, dict(trees), sizes

    @classmethod
    def fit(cls, train: Sequences, shares_NV: Floats, valid: Sequences | None, valid_NV: Floats | None) -> Trees:
        """See `Baseline.fit`; the number of trees is chosen on the validation part."""
        from sklearn.ensemble import HistGradientBoostingClassifier

        rows, classes, weights = _weighted(shares_NV)
        forest = HistGradientBoostingClassifier(max_iter=_ROUNDS, early_stopping=False, random_state=0)
        features = summary_features(train)
        forest.fit(features[rows], classes, sample_weight=weights)
        rounds = _ROUNDS // 2
        if valid is not None and valid_NV is not None:
            staged = forest.staged_predict_proba(summary_features(valid))
            rounds = 1 + int(np.argmin([mean_nats(p_NV, valid_NV[:, forest.classes_]) for p_NV in staged]))
        model = cls._of_forest(forest, rounds)
        expected = next(p for number, p in enumerate(forest.staged_predict_proba(features[:50]), 1) if number == rounds)
        if not np.allclose(model._of_features(features[:50]), expected, atol=1e-6):
            raise CheckpointError("this version of scikit-learn keeps its trees in another way: fit without trees")
        return model._among(forest.classes_, shares_NV.shape[1])

    @classmethod
    def _of_forest(cls, forest: Any, rounds: int) -> Trees:
        nodes = [tree.nodes for row in forest._predictors[:rounds] for tree in row]
        trees = {name: np.concatenate([each[name] for each in nodes]).astype(np.float64) for name in _NODE}
        return cls(forest._baseline_prediction.reshape(-1), trees, np.array([len(each) for each in nodes]))

    def _among(self, present: NDArray[np.int64], classes: int) -> Trees:
        """Remembers which of all classes the outputs are of."""
        self.present, self.classes = present, classes
        return self

    def _of_features(self, features_NG: Floats) -> Floats:
        raw_NK = np.repeat(self.start_K[None], len(features_NG), axis=0)
        begins = np.cumsum(self.sizes) - self.sizes
        rows = np.arange(len(features_NG))
        for number, begin in enumerate(begins.tolist()):
            node_N = np.full(len(rows), begin)
            while not (leaf_N := self.trees["is_leaf"][node_N] > 0).all():
                x_N = features_NG[rows, np.where(leaf_N, 0, self.trees["feature_idx"][node_N]).astype(np.int64)]
                left = x_N <= self.trees["num_threshold"][node_N]
                child = np.where(left, self.trees["left"][node_N], self.trees["right"][node_N]).astype(np.int64)
                node_N = np.where(leaf_N, node_N, begin + child)
            raw_NK[:, number % len(self.start_K)] += self.trees["value"][node_N]
        if len(self.start_K) == 1:
            raw_NK = np.concatenate([np.zeros_like(raw_NK), raw_NK], 1)
        return softmax(raw_NK)

    def say(self, inputs: Sequences) -> Floats:
        """See `Baseline.say`."""
        p_NV = np.full((len(inputs), self.classes), 1e-9)
        p_NV[:, self.present] = self._of_features(summary_features(inputs))
        return np.asarray(p_NV / p_NV.sum(1, keepdims=True))

    def tensors(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """See `Baseline.tensors`."""
        held = {name: torch.from_numpy(values) for name, values in self.trees.items()}
        held |= {"start": torch.from_numpy(self.start_K), "sizes": torch.from_numpy(self.sizes)}
        return {**held, "present": torch.from_numpy(self.present)}, {"classes": self.classes}

    @classmethod
    def read(cls, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> Trees:
        """See `Baseline.read`."""
        trees = {name: tensors[name].numpy() for name in _NODE}
        found = cls(tensors["start"].numpy(), trees, tensors["sizes"].numpy())
        return found._among(tensors["present"].numpy(), facts["classes"])


BASELINES: dict[str, type[Baseline]] = {each.name: each for each in (Counted, Linear, Trees)}
