"""The models of a fit: the network, the baselines beside it, and their mix; how they compare; saving and loading.

N sequences, V classes, M models.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from charlm.checkpoint import read_config, read_vocab, read_weights
from charlm.codec import decode
from charlm.errors import CharlmError, CheckpointError, OptionError
from charlm.files import write_json
from charlm.nn.kernels import for_reading
from charlm.sequences import Examples, Sequences
from charlm.sequences.baselines import BASELINES, Baseline, Counted, Linear, Trees
from charlm.sequences.config import SequenceConfig
from charlm.sequences.fit_run import describe_sequence
from charlm.sequences.metrics import Floats, mean_nats, softmax
from charlm.sequences.model import SequenceModel
from charlm.tensors import read_tensors, write_tensors

MODELS = ("rnn", "counted", "linear", "trees", "mix")
"""Names of models: the network, the baselines, and the mix of all that there are."""

BASELINES_FILE = "baselines.safetensors"


@dataclass(frozen=True, kw_only=True)
class Models:
    """The models of a fit.

    Args:
        network: the recurrent network.
        baselines: by name, those that were fitted beside it.
        weights: of the mix, by name: its probabilities are proportional to Π p_m^w_m; none where there is no mix.
        chosen: the model that predicts by default.
        valid_nats: the log loss of each on the validation part, where it was measured.
        seconds: what fitting each took, where it was measured.
    """

    network: SequenceModel
    baselines: Mapping[str, Baseline] = field(default_factory=dict)
    weights: Mapping[str, float] = field(default_factory=dict)
    chosen: str = "rnn"
    valid_nats: Mapping[str, float] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        """The models that there are."""
        return ["rnn", *self.baselines, *(["mix"] if self.weights else [])]

    def say(
        self, inputs: Sequences, model: str | None = None, progress: Callable[[int], object] | None = None
    ) -> list[NDArray[np.float64]]:
        """What a model says of each sequence; as of `predict_rows`.

        Args:
            inputs: the sequences.
            model: one of `names`; None takes the chosen one.
            progress: called with how many more are done.
        """
        name = model or self.chosen
        if name not in self.names:
            raise OptionError(f"this fit has no model {name!r}: it has {', '.join(self.names)}")
        if name == "rnn":
            return predict_rows(self.network, inputs, progress)
        if name == "mix":
            p_NV = mixed({each: self.probabilities(inputs, each) for each in self.weights}, self.weights)
        else:
            p_NV = self.baselines[name].say(inputs)
        if progress is not None:
            progress(len(inputs))
        return list((p_NV if self.network.config.mode == "distribution" else p_NV[:, 1:])[:, None])

    def probabilities(self, inputs: Sequences, model: str) -> Floats:
        """Probabilities of the classes [N, V] of whole sequences; of a Score those of no and yes."""
        said = np.concatenate(self.say(inputs, model))
        return np.concatenate([1 - said, said], 1) if self.network.config.mode == "score" else said

    def write(self, directory: Path) -> dict[str, Any]:
        """Writes the baselines into a model directory; what is returned belongs into its `config.json` as `models`."""
        tensors: dict[str, torch.Tensor] = {}
        described: dict[str, Any] = {}
        for name, baseline in self.baselines.items():
            held, described[name] = baseline.tensors()
            tensors |= {f"{name}.{key}": value.contiguous() for key, value in held.items()}
        write_tensors(directory / BASELINES_FILE, tensors, {"baselines": json.dumps(described)})
        return {"chosen": self.chosen, "weights": dict(self.weights), "valid_nats": dict(self.valid_nats)}


def shares_of(targets: Sequences, mode: str, classes: int) -> Floats:
    """The share of each class in each label of whole sequences, [N, V]; of a Score those of no and yes."""
    values = targets.values.numpy()
    if mode == "score":
        return np.stack([1 - values.reshape(-1), values.reshape(-1)], 1)
    return np.eye(classes)[values] if targets.ids else values.astype(np.float64)


def mixed(p: Mapping[str, Floats], weights: Mapping[str, float]) -> Floats:
    """Probabilities proportional to Π p_m^w_m, [N, V]."""
    return softmax(np.asarray(sum(weight * _log(p[name]) for name, weight in weights.items())))


def _log(p: Floats) -> Floats:
    return np.asarray(np.log(np.maximum(p, 1e-9)))


def mixing_weights(p: Mapping[str, Floats], shares_NV: Floats) -> dict[str, float]:
    """The weights w ≥ 0 of a mix with the least log loss of these rows, drawn a little towards 1/M each.

    >>> said = {"sure": np.array([[0.9, 0.1], [0.1, 0.9]]), "vague": np.array([[0.5, 0.5], [0.5, 0.5]])}
    >>> weights = mixing_weights(said, np.eye(2))
    >>> weights["sure"] > weights["vague"]
    True
    """
    from scipy.optimize import minimize

    logs_MNV = np.stack([_log(each) for each in p.values()])
    even = 1 / len(p)

    def loss(w_M: Floats) -> tuple[float, Floats]:
        x_NV = np.tensordot(w_M, logs_MNV, 1)
        q_NV = softmax(x_NV)
        drawn = 2.0 / len(shares_NV)
        nats = mean_nats(q_NV, shares_NV) + drawn * float(((w_M - even) ** 2).sum())
        slope_M = ((q_NV - shares_NV) * logs_MNV).sum((1, 2)) / len(shares_NV) + 2 * drawn * (w_M - even)
        return nats, slope_M

    found = minimize(loss, np.full(len(p), even), jac=True, method="L-BFGS-B", bounds=[(0, None)] * len(p))
    return {name: float(weight) for name, weight in zip(p, found.x, strict=True)}


_FOLDS = 5


def _mix_nats(p: Mapping[str, Floats], shares_NV: Floats) -> float:
    """The log loss of a mix on rows that its weights were not fitted to: each fifth by the weights of the others."""
    fold_N = np.arange(len(shares_NV)) % _FOLDS
    nats = 0.0
    for fold in range(min(_FOLDS, len(shares_NV))):
        out = fold_N == fold
        weights = mixing_weights({name: each[~out] for name, each in p.items()}, shares_NV[~out])
        nats += mean_nats(mixed({name: each[out] for name, each in p.items()}, weights), shares_NV[out]) * out.sum()
    return nats / len(shares_NV)


def fit_models(
    network: SequenceModel,
    train: Examples,
    valid: Examples | None,
    *,
    wanted: str = "auto",
    seconds: float = 0.0,
    say: Callable[[str], object] = lambda sentence: None,
) -> Models:
    """Fits the baselines and the mix beside a trained network.

    Args:
        network: as it was trained on the same examples. With a label for every step, or labels in other units than
            0..1, there are no baselines.
        train, valid: the examples; without a validation part there is no mix.
        wanted: `auto` chooses the model with the least log loss on the validation part; else the name of a model.
        seconds: what training the network took.
        say: is told how each does on the validation part.
    """
    config, took = network.config, {"rnn": seconds}
    refuse_model(wanted, config, train, valid)
    baselines: dict[str, Baseline] = {}
    if wanted != "rnn" and (kinds := _kinds(config, train)):
        shares_NV = shares_of(train.targets, config.mode, config.classes)
        held = None if valid is None else shares_of(valid.targets, config.mode, config.classes)
        for kind in kinds:
            begun = time.perf_counter()
            inputs = None if valid is None else valid.inputs
            baselines[kind.name] = kind.fit(train.inputs, shares_NV, inputs, held)
            took[kind.name] = time.perf_counter() - begun
    if not baselines or valid is None:
        chosen = "rnn" if wanted == "auto" else wanted
        return Models(network=network, baselines=baselines, chosen=chosen, seconds=took)
    first = Models(network=network, baselines=baselines)
    assert held is not None
    p = {name: first.probabilities(valid.inputs, name) for name in first.names}
    nats = {name: mean_nats(each, held) for name, each in p.items()}
    weights = mixing_weights(p, held) if len(held) >= _FOLDS else {}
    took["mix"] = sum(took.values())
    nats |= {"mix": _mix_nats(p, held)} if weights else {}
    say("valid part, nats a label: " + ", ".join(f"{name} {value:.4f}" for name, value in nats.items()))
    best = min(nats, key=lambda name: nats[name]) if wanted == "auto" else wanted
    return Models(network=network, baselines=baselines, weights=weights, chosen=best, valid_nats=nats, seconds=took)


def _kinds(config: SequenceConfig, train: Examples) -> tuple[type[Baseline], ...]:
    """The baselines that there can be: none where labels are at every step or scaled, or a class has no example."""
    if config.output != "last" or config.target_scale is not None:
        return ()
    if not (shares_of(train.targets, config.mode, config.classes).sum(0) > 0).all():
        return ()
    return (Trees,) if config.features else (Counted, Linear)


def refuse_model(wanted: str, config: SequenceConfig, train: Examples, valid: Examples | None) -> None:
    """Refuses a model that `fit_models` could not make of these examples, before the network is trained."""
    if wanted not in ("auto", *MODELS):
        raise OptionError(f"unknown model {wanted!r}: choose auto or one of {', '.join(MODELS)}")
    names = ["rnn", *(kind.name for kind in _kinds(config, train))]
    names += ["mix"] if len(names) > 1 and valid is not None and len(valid) >= _FOLDS else []
    if wanted not in ("auto", *names):
        raise OptionError(f"there is no model {wanted!r} of these sequences: there are {', '.join(names)}")


def best_of(nats: Mapping[str, NDArray[np.float64]], draws: int = 1000) -> tuple[str, list[str]]:
    """The model with the least mean, and those that it cannot be told apart from by a paired bootstrap.

    Rows are drawn with repetition, the same ones for all models; another model is told apart where its mean is greater
    in at least 97.5 % of the draws.

    Args:
        nats: the log loss of each row, by model, [N].
        draws: how many.

    >>> row = np.linspace(0, 1, 50)
    >>> best_of({"a": row, "b": row + 0.1, "c": row[::-1]})
    ('a', ['c'])
    """
    names = list(nats)
    nats_NM = np.stack([nats[name] for name in names], 1)
    best = int(nats_NM.mean(0).argmin())
    above_NM = nats_NM - nats_NM[:, [best]]
    chance = np.random.default_rng(0)
    worse_M = sum((above_NM[chance.integers(len(above_NM), size=len(above_NM))].mean(0) > 0) for _ in range(draws))
    close = [name for name, worse in zip(names, worse_M / draws, strict=True) if worse < 0.975 and name != names[best]]
    return names[best], close


def predict_rows(
    model: SequenceModel, inputs: Sequences, progress: Callable[[int], object] | None = None, piece: int = 1024
) -> list[NDArray[np.float64]]:
    """What a model says of each sequence: [K, 1] Scores or [K, V] probabilities, K being 1 or the steps.

    Args:
        model: of the same kind of input.
        inputs: the sequences.
        progress: called with how many more are done.
        piece: how many are done between two calls.
    """
    found = []
    for rows in torch.split(torch.arange(len(inputs)), piece):
        found += [said.numpy() for said in model.predict(inputs.take(rows))]
        if progress is not None:
            progress(len(rows))
    return found


@dataclass(frozen=True, kw_only=True)
class SequenceCheckpoint:
    """A `SequenceModel` read from a directory.

    Args:
        directory: where it is.
        model: the network.
        data: what it was made from, as the one who made it wrote it down; strict JSON.
        config: the whole of `config.json`.
        models: the network, the baselines beside it, and their mix.
    """

    directory: Path
    model: SequenceModel
    data: dict[str, Any]
    config: dict[str, Any]
    models: Models

    @property
    def name(self) -> str:
        """The directory's own name, for tables."""
        return self.directory.resolve().name


def _read_models(directory: Path, network: SequenceModel, facts: Any) -> Models:
    """The models of a directory; only the network where `config.json` names no others."""
    if facts is None:
        return Models(network=network)
    tensors, metadata = read_tensors(directory / BASELINES_FILE)
    try:
        described = json.loads(metadata["baselines"])
        baselines = {
            name: BASELINES[name].read(
                {key.partition(".")[2]: held for key, held in tensors.items() if key.startswith(f"{name}.")}, about
            )
            for name, about in described.items()
        }
        weights = {str(name): float(weight) for name, weight in facts["weights"].items()}
        return Models(network=network, baselines=baselines, weights=weights, chosen=str(facts["chosen"]))
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, RuntimeError) as error:
        raise CheckpointError(f"{directory}/{BASELINES_FILE} does not hold the models of a fit ({error!r})") from None


def save_sequence(directory: Path, models: Models, data: Mapping[str, Any], **more: Any) -> None:
    """Writes models of sequences as a model directory, the weights of the network as `best` and `last`."""
    model = models.network
    more |= {"models": models.write(directory)} if models.baselines else {}
    if model.vocab is not None:
        write_json(directory / "vocab.json", model.vocab.to_json())
    for name in ("best", "last"):
        mark = None if model.vocab is None else {"vocab_sha256": model.vocab.sha256}
        write_tensors(directory / f"{name}.safetensors", dict(model.named_parameters()), mark)
    write_json(directory / "config.json", describe_sequence(model.config, data, **more))


def load_sequence(
    directory: str | Path, *, device: str | torch.device = "cpu", weights: str = "best"
) -> SequenceCheckpoint:
    """Reads a Score or Distribution model from its directory.

    Args:
        directory: a run directory, `checkpoints/NAME`.
        device: where its weights go.
        weights: `best` or `last`.

    Raises:
        CheckpointError: nothing there, broken, of another kind, or of a future version; says which.
    """
    directory = Path(directory)
    config = read_config(directory, kind="sequence")
    if not isinstance(config["data"], dict):
        raise CheckpointError(f"{directory}/config.json does not say what its model was made from")
    try:
        shape = decode(SequenceConfig, config["model"], "the stored shape of the model")
        vocab = None if shape.features else read_vocab(directory)
        with torch.device("meta"):
            model = SequenceModel(shape, vocab)
        read_weights(directory / f"{weights}.safetensors", model)
    except CheckpointError:
        raise
    except CharlmError as error:
        raise CheckpointError(f"{directory} holds a broken model: {error}") from None
    model.to(device)
    model.stack.backend = for_reading(model.device)
    models = _read_models(directory, model, config.get("models"))
    return SequenceCheckpoint(directory=directory, model=model, data=config["data"], config=config, models=models)
