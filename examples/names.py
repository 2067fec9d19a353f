"""Names of 18 invented languages, and the models of `charlm fit` on them.

No language is a real one, and no name is anybody's. Six families of three languages each: a family draws its sounds and
its endings by chance, and each language changes some of them, so that sisters are hard to tell apart. A name has one to
four syllables: an onset, a vowel, perhaps a coda. What makes the languages differ beyond their sounds is far apart in a
name: in some all vowels are of one kind (vowel harmony), in some the first consonant comes again in the last syllable
(reduplication), in some the ending's vowel repeats that of the first syllable.

    python examples/names.py               # fits all models and prints their table
    python examples/names.py 20000 > names.csv
"""

from __future__ import annotations

import random
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import charlm


def listed(words: str) -> list[str]:
    """The words of a string."""
    return words.split()


ONSETS = listed("b c d f g h j k l m n p r s t v w z br ch dr fl gr kl kr ll mb nd ny pr sh sk st sv tr ts zh")
FRONT, BACK = listed("e i ö ü ei ie"), listed("a o u ou au ao")
CODAS = listed("n r s l m t k d ng rt nt sch x z")
ENDINGS = listed("son ov ez ini ou wicz sen ko ian ski ard quist elli aki oğlu berg dóttir escu ic eira")
LANGUAGES = 18


@dataclass(frozen=True)
class Language:
    """How names of a language are made.

    Args:
        onsets, vowels, codas, endings: with a weight for each.
        closed: how often a syllable has a coda.
        ended: how often a name has an ending.
        syllables: weights of one to four.
        rule: `harmony`, `reduplication`, `echo` or none.
    """

    onsets: dict[str, float]
    vowels: dict[str, float]
    codas: dict[str, float]
    endings: dict[str, float]
    closed: float
    ended: float
    syllables: tuple[float, ...]
    rule: str


def weighted(chance: random.Random, names: list[str], count: int) -> dict[str, float]:
    """Some of the names, each with a weight."""
    return {name: chance.expovariate(1) + 0.05 for name in chance.sample(names, count)}


def sister(chance: random.Random, parent: Language) -> Language:
    """A language like its parent, with some sounds weighed otherwise and one ending of its own."""

    def changed(weights: dict[str, float]) -> dict[str, float]:
        return {name: weight * chance.choice((0.3, 1, 1, 1, 2.5)) for name, weight in weights.items()}

    endings = {**changed(parent.endings), chance.choice(ENDINGS): 0.5}
    rule = chance.choice((parent.rule, "harmony", "reduplication", "echo", ""))
    return replace(
        parent, onsets=changed(parent.onsets), vowels=changed(parent.vowels), codas=changed(parent.codas),
        endings=endings, closed=min(0.9, parent.closed * chance.uniform(0.7, 1.3)), rule=rule,
    )  # fmt: skip


def languages(seed: int = 1) -> list[Language]:
    """The 18 languages."""
    chance, found = random.Random(seed), []
    for _ in range(LANGUAGES // 3):
        parent = Language(
            onsets=weighted(chance, ONSETS, 16),
            vowels=weighted(chance, FRONT, 3) | weighted(chance, BACK, 3),
            codas=weighted(chance, CODAS, 6),
            endings=weighted(chance, ENDINGS, 3),
            closed=chance.uniform(0.15, 0.6),
            ended=chance.uniform(0.15, 0.5),
            syllables=(chance.uniform(0.1, 1), 2, 2, chance.uniform(0.1, 1)),
            rule="",
        )
        found += [sister(chance, parent) for _ in range(3)]
    return found


def pick(chance: random.Random, weights: dict[str, float]) -> str:
    """One of the names by its weight."""
    return chance.choices(list(weights), list(weights.values()))[0]


def name_of(chance: random.Random, language: Language) -> str:
    """A name of a language."""
    count = chance.choices((1, 2, 3, 4), language.syllables)[0]
    first = pick(chance, language.vowels)
    allowed = [name for name in language.vowels if (name in FRONT) == (first in FRONT)]
    kept = {name: language.vowels[name] for name in allowed} if language.rule == "harmony" else language.vowels
    onset, name = pick(chance, language.onsets), ""
    for place in range(count):
        again = language.rule == "reduplication" and place == count - 1
        name += onset if place == 0 or again else pick(chance, language.onsets)
        name += first if place == 0 else pick(chance, kept)
        if chance.random() < language.closed:
            name += pick(chance, language.codas)
    if chance.random() < language.ended:
        name += pick(chance, language.endings)
    if language.rule == "echo":
        name += first
    return name


def table(rows: int, seed: int = 0) -> list[tuple[str, str]]:
    """So many names, each with its language; a name may stand in several languages, as names do."""
    chance, known = random.Random(seed), languages()
    found: dict[tuple[str, str], None] = {}
    while len(found) < rows:
        number = chance.randrange(LANGUAGES)
        found[name_of(chance, known[number]).capitalize(), f"language{number + 1:02}"] = None
    return list(found)


def write(path: Path, rows: int, seed: int = 0) -> None:
    """Writes such a table as CSV."""
    path.write_text("\n".join(",".join(row) for row in [("name", "language"), *table(rows, seed)]) + "\n")


def main(small: bool = False) -> str:
    """Fits all models to a table and shows how good they are."""
    import tempfile

    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "names.csv"
        write(path, 600 if small else 20_000)
        found = charlm.fit_table(path, sequence="name", label="language", max_steps=20 if small else None)
    return repr(found)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print("name,language")
        print("\n".join(",".join(row) for row in table(int(sys.argv[1]))))
    else:
        print(main())
