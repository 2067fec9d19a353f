"""`TextModel`: a language model with the methods that a person calls, from characters to characters.

`LanguageModel` (in `interface`) is what the engines know: ids in, log-probabilities out. Every family of this package
(n-grams, recurrent networks, mixtures, ...) derives from `TextModel` and so can be evaluated, sampled, scored and saved
in the same words.
"""

from __future__ import annotations

import abc
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, overload

from charlm.errors import OptionError
from charlm.files import describe, new_directory, write_json
from charlm.lm.evaluate import Evaluation, as_part, evaluate_part
from charlm.lm.interface import LanguageModel, SamplingRule
from charlm.lm.items import ItemSample, ItemScores, sample_items, score_items
from charlm.lm.sampling import NextCharacter, Stream, generate_streams, next_character
from charlm.lm.scored import TextScore, score_text
from charlm.tensors import Bits
from charlm.text.text import Part, Text, TextFacts, read_text


class TextModel(LanguageModel, abc.ABC):
    """A language model of characters, ready to use.

    Attributes:
        kind: the family's name in `config.json`, such as `ngram` or `rnn`.
        source: the facts about the text that the model was made from; empty where that is not known.
        directory: where the model was read from or saved to; None where it is in memory alone.
        description: the whole of `config.json` of a model that was read from a directory; else empty.
    """

    kind: ClassVar[str]
    source: TextFacts = TextFacts()
    directory: Path | None = None
    description: Mapping[str, Any] = MappingProxyType({})

    # -- what a family provides to be kept in a directory -------------------------------------------------------

    @abc.abstractmethod
    def shape(self) -> dict[str, Any]:
        """The JSON value that makes the model again, together with its files."""

    def write_files(self, directory: Path) -> dict[str, Any]:
        """Writes the model's own files, if it has any; returns further values for `config.json`, such as checksums."""
        return {}

    # -- what a person calls ------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """What tables call the model: the name of its directory, else what it is."""
        return self.title if self.directory is None else self.directory.resolve().name

    @property
    def title(self) -> str:
        """What the model is, in a few words."""
        return self.kind

    @property
    def start(self) -> int:
        """The symbol after which generation starts without a prompt: a line feed, else the text's first symbol."""
        characters = self.vocab.characters
        if "\n" in characters:
            return characters.index("\n")
        return self.source.first

    def evaluate(
        self, text: Text | Part | str, *, lanes: int | None = None, progress: bool | None = None
    ) -> Evaluation:
        """Measures how well the model foresees a text: nats, bits, perplexity, accuracy.

        Args:
            text: a part; a whole text, of which the test part is read (else valid, else all); or plain characters.
            lanes: spans that are read side by side; by default 64, and 1 for a model that learns while it reads.
            progress: show a bar; None shows it on a terminal or in a notebook.

        Raises:
            TextError: the text has no character to predict, or none that the model knows.
        """
        return evaluate_part(self, as_part(text), lanes=lanes, progress=progress)

    @overload
    def sample(
        self, prompt: str | None = None, *, length: int = 1000, temperature: float = 1.0, top_k: int | None = None,
        top_p: float = 1.0, seed: int = 0, stop: str | None = None, streams: None = None,
    ) -> str: ...  # fmt: skip

    @overload
    def sample(
        self, prompt: str | None = None, *, length: int = 1000, temperature: float = 1.0, top_k: int | None = None,
        top_p: float = 1.0, seed: int = 0, stop: str | None = None, streams: int,
    ) -> list[str]: ...  # fmt: skip

    def sample(
        self, prompt: str | None = None, *, length: int = 1000, temperature: float = 1.0, top_k: int | None = None,
        top_p: float = 1.0, seed: int = 0, stop: str | None = None, streams: int | None = None,
    ) -> str | list[str]:  # fmt: skip
        """Generates text after a prompt; the prompt is not part of what is returned.

        Args:
            prompt: what the text begins after; by default a line end.
            length: characters to generate.
            temperature: below 1 more careful, above 1 more daring; 0 takes the most probable character.
            top_k: draw from the k most probable characters only.
            top_p: draw from the most probable characters whose probabilities reach p together.
            seed: of all chance: the same seed gives the same text.
            stop: a text that ends the generation; it is left out.
            streams: generate so many texts side by side and return a list.

        Raises:
            OptionError: an option out of its range.
            UnknownCharacterError: the prompt has a character that the model does not know.
        """
        *_, last = self.grow(
            prompt, length=length, temperature=temperature, top_k=top_k, top_p=top_p, seed=seed, stop=stop,
            streams=1 if streams is None else streams,
        )  # fmt: skip
        return last[0].text if streams is None else [stream.text for stream in last]

    def stream(
        self, prompt: str | None = None, *, length: int = 1000, temperature: float = 1.0, top_k: int | None = None,
        top_p: float = 1.0, seed: int = 0, stop: str | None = None,
    ) -> Iterator[str]:  # fmt: skip
        """Generates text as `sample` does and yields it piece by piece while it grows."""
        shown = 0
        for (grown,) in self.grow(
            prompt, length=length, temperature=temperature, top_k=top_k, top_p=top_p, seed=seed, stop=stop,
            chunk=32,
        ):  # fmt: skip
            certain = grown.certain(stop)
            if len(certain) > shown:
                yield certain[shown:]
                shown = len(certain)

    def grow(
        self, prompt: str | None = None, *, length: int = 1000, temperature: float = 1.0, top_k: int | None = None,
        top_p: float = 1.0, seed: int = 0, stop: str | None = None, streams: int = 1, chunk: int = 256,
    ) -> Iterator[list[Stream]]:  # fmt: skip
        """Generates texts side by side and yields the same list of `Stream`s after every `chunk` of symbols.

        A `Stream` holds, beside its text, the drawn symbols, the log-probability of each and the Score of the whole.
        """
        rule = SamplingRule(temperature=temperature, top_k=top_k or 0, top_p=top_p)
        start = self.vocab.encode(prompt).tolist() if prompt else [self.start]
        return generate_streams(
            self, start, length=length, rule=rule, streams=streams, seed=seed, stop=stop, chunk=chunk
        )

    def next(self, history: str) -> NextCharacter:
        """The distribution of the next character after a history.

        Raises:
            OptionError: the history is empty.
            UnknownCharacterError: the history has a character that the model does not know.
        """
        return next_character(self, history)

    def score(self, text: Text | Part | str) -> TextScore:
        """How surprising each character of a text is to the model: bits of each, their mean, and the Score in 0..1.

        Args:
            text: plain characters, a part, or a whole text (of which the test part is read, else valid, else all).

        Raises:
            TextError: the text has no character to score.
        """
        return score_text([self], as_part(text))

    def score_items(
        self, items: Sequence[str], *, guesses: int = 0, seed: int = 0, progress: bool | None = None
    ) -> ItemScores:
        """The probability of whole items, each from its beginning to its end mark.

        Args:
            items: their characters.
            guesses: also estimate how many items are more probable than each, from a sample of so many of the
                model's (Dell'Amico and Filippone 2015).
            seed: of that sample.
            progress: show bars; None shows them on a terminal or in a notebook.

        >>> import charlm, numpy as np
        >>> model = charlm.ngram(charlm.Text.of(["a", "b", "b", "ab"] * 9, split="100/0/0"), order=1)
        >>> np.exp(model.score_items(["b", "ab", "ba"]).logp_N).round(3).tolist()  # 1/2 · 1, 1/2 · 1/2 · 1, 0
        [0.5, 0.25, 0.0]
        """
        return score_items(self, items, guesses=guesses, seed=seed, progress=progress)

    def sample_items(
        self,
        count: int,
        *,
        unique: bool = False,
        new: bool = False,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float = 1.0,
        length: int = 1000,
        seed: int = 0,
        progress: bool | None = None,
    ) -> ItemSample:
        """Draws whole items, many side by side, with the log-probability of each.

        Items without an end after `length` characters and empty ones are left out; what is left out is counted by its
        reason, and made up for by further draws until hardly any other item comes.

        Args:
            count: how many.
            unique: none twice.
            new: none that is in the list that the model was made from, in whichever part of it.
            temperature, top_k, top_p, seed: as for `sample`.
            length: characters that an item has at most.
            progress: show a bar; None shows it on a terminal or in a notebook.

        Raises:
            OptionError: the training list is not at hand for `new`, or an option is out of its range.
        """
        rule = SamplingRule(temperature=temperature, top_k=top_k or 0, top_p=top_p)
        options: dict[str, Any] = {"unique": unique, "new": new, "length": length, "seed": seed}
        return sample_items(self, count, rule=rule, progress=progress, **options)

    def with_bits(self, bits: Bits) -> TextModel:
        """The model with weights of 16 or 8 bits, which one text is generated from faster; 32 copies the model.

        Every matrix becomes whole numbers with a scale for each row. All methods read these weights, so that `evaluate`
        measures what they cost in nats. Where the compiled kernels are not there, the speed stays as it was.

        Args:
            bits: of a weight: 32, 16 or 8.

        Raises:
            OptionError: the model is not a network, which alone has such weights.
        """
        raise OptionError(f"weights of {bits} bits are for a network: {self.title} has none, leave the bits out")

    def with_precision(self, precision: str) -> TextModel:
        """A copy of the model that reads with products in another precision.

        Args:
            precision: `fp32`, or `bf16`: states and weights are rounded to bfloat16 for the products, sums are float32.
                Generation in compiled code takes weights as `with_bits` says, whatever the precision is.

        Raises:
            OptionError: the device has no products of bfloat16, or the model is not a network.
        """
        raise OptionError(f"a precision is for a network: {self.title} multiplies no matrices, leave it out")

    def save(self, directory: str | Path, *, overwrite: bool = False) -> Path:
        """Saves the model as a directory that `charlm.load` and every command read.

        Args:
            directory: where; `checkpoints/NAME` is where commands look by default.
            overwrite: replace a model that is there.

        Raises:
            OptionError: the directory is taken and `overwrite` is not set.
        """
        with new_directory(directory, overwrite=overwrite) as made:
            self.write_to(made)
        self.directory = Path(directory)
        return self.directory

    def write_to(self, directory: Path) -> None:
        """Writes the model's files into a directory; `config.json` comes last and makes them a model."""
        write_json(directory / "vocab.json", self.vocab.to_json())
        more = {**self.write_files(directory), "vocab_sha256": self.vocab.sha256}
        write_json(directory / "config.json", describe(self.kind, self.shape(), self.source, **more))


def as_models(models: Iterable[object]) -> list[TextModel]:
    """Language models as a list; anything else among them, such as the name of a directory, is refused."""
    found = []
    for model in models:
        if not isinstance(model, TextModel):
            raise OptionError(
                f"a model is what charlm.ngram, charlm.train or charlm.load returns, not {type(model).__name__}: "
                "open a directory with charlm.load"
            )
        found.append(model)
    return found


def own_text(
    model: TextModel, text: Text | str | Path | Sequence[str | Path] | None = None, *, progress: bool | None = None
) -> Text:
    """The text that a model was made from, in its symbols and under its split.

    Args:
        model: with the facts of its text.
        text: the text, or the files where it is now; None reads it from its old place.
        progress: show a bar; None shows it on a terminal or in a notebook.

    Raises:
        OptionError: the text is not found, or is another one.
    """
    source = model.source
    if isinstance(text, Text):
        found = Text(corpus=text.corpus.under(model.vocab), split=source.split)
    else:
        names = list(source.names) if text is None else [text] if isinstance(text, str | Path) else list(text)
        missing = [name for name in names if str(name) == "-" or not Path(name).exists()]
        if text is None and (missing or not names):
            where = f"there is no {missing[0]} here" if missing else "the model does not name its files"
            where = "it came from standard input" if "-" in missing else where
            raise OptionError(f"the text of {model.name} is needed, and {where}: name it with --text FILE")
        found = read_text(names, like=model, progress=progress)
    if found.corpus.sha256 != source.sha256:
        raise OptionError(
            f"{', '.join(found.corpus.names)} is not the text that {model.name} was made from ({source.sha256[:12]} "
            f"then, {found.corpus.sha256[:12]} now): name that one with --text FILE"
        )
    return found
