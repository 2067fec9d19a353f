"""Domains that people registered against domains that an algorithm made, and the models of `charlm fit` on them.

All rows are made by chance, by the rules below; none is anybody's data. Ordinary names: one to three words (frequent
ones more often), trades with a surname, invented brands, short forms; some with a hyphen or a number. Algorithms:
letters of a linear congruential generator, hexadecimal digits of a hash, an arithmetic chain of letters, pronounceable
syllables, and two or three words of a dictionary that shares half of its words with the ordinary names.

    python examples/domains.py             # fits all models and prints their table
    python examples/domains.py 10000 > domains.csv
    python examples/domains.py 10000 0.02 > rare.csv    # 2 % of them generated
"""

from __future__ import annotations

import hashlib
import random
import sys
from pathlib import Path

import charlm


def listed(words: str) -> list[str]:
    """The words of a string."""
    return words.split()


COMMON = listed(
    "shop home book car health city sport music garden house school travel hotel food photo design art kids news game "
    "green blue sun star light water wood stone fire market "
    "store center world group media net web tech soft data cloud "
    "smart fast best easy good fresh pure true first one all "
    "my your the our club team life love day time style fashion "
    "beauty hair skin dental clinic care law tax bank money gold credit loan estate land haus bau auto bike motor taxi "
    "berg see tal wald markt platz hof apotheke praxis kanzlei "
    "verein schule kirche fest bistro pizza cafe wine beer tea "
    "bakery farm animal dog cat horse bird fish flower tree rose apple honey river ocean beach island mountain valley "
    "north south east west old new big little happy lucky magic dream royal king queen castle tower bridge gate park"
)
RARE = listed(
    "window table chair paper pencil letter number figure "
    "engine wheel bottle button pocket winter summer autumn spring "
    "morning evening against before through between matter nature power system future history picture moment reason "
    "person member family mother father brother sister teacher "
    "doctor driver writer singer leader worker farmer soldier "
    "gather follow listen answer remain appear happen "
    "consider believe suppose require produce provide protect increase "
    "electric possible probable separate particular general different difficult necessary beautiful wonderful strange"
)
SURNAMES = listed("mueller schmidt becker wagner keller brandt smith jones taylor brown rossi silva garcia lopez novak")
TRADES = listed("dach bad ofen maler elektro tischler garten foto recht steuer zahn physio yoga taxi immobilien")
ENDINGS = ("com", "net", "org", "info", "biz")


def brand(chance: random.Random) -> str:
    """A name that somebody invented: few syllables, liked endings."""
    syllables = [chance.choice(listed("b c d f g k l m n p r s t v z br cl tr st pl")) + chance.choice("aeiou")
                 for _ in range(chance.choice((1, 2, 2, 3)))]  # fmt: skip
    return "".join(syllables) + chance.choice(("", "", "x", "ly", "ia", "on", "ix", "tec", "soft", "net", "lab"))


def words(chance: random.Random) -> str:
    """One to three words, the first ones of the list more often."""
    count = chance.choice((1, 2, 2, 2, 3))
    picked = [COMMON[min(int(chance.expovariate(1) * 45), len(COMMON) - 1)] for _ in range(count)]
    if chance.random() < 0.12:
        picked[-1] = chance.choice(RARE)
    return ("-" if chance.random() < 0.2 else "").join(picked)


def ordinary(chance: random.Random) -> str:
    """A domain that somebody registered."""
    kind = chance.random()
    if kind < 0.6:
        name = words(chance)
    elif kind < 0.75:
        pair = [chance.choice(TRADES), chance.choice(SURNAMES)]
        chance.shuffle(pair)
        name = chance.choice(("-", "")).join(pair)
    elif kind < 0.92:
        name = brand(chance)
    else:
        name = "".join(chance.choice("abcdefghijklmnoprstuvw") for _ in range(chance.choice((2, 3, 3, 4))))
        name += chance.choice(COMMON[:60])
    if chance.random() < 0.08:
        name += chance.choice(("24", "365", "1", "2000", "online", "4u", "123"))
    return f"{name}.{chance.choices(ENDINGS, (60, 12, 12, 8, 8))[0]}"


def made(chance: random.Random) -> tuple[str, str]:
    """A domain that an algorithm made, and which one."""
    kind = chance.choice(("letters", "hash", "chain", "syllables", "dictionary"))
    if kind == "letters":
        state, name = chance.getrandbits(31), ""
        for _ in range(chance.randint(7, 14)):
            state = (state * 1103515245 + 12345) % 2**31
            name += chr(97 + (state >> 16) % 26)
    elif kind == "hash":
        name = hashlib.sha256(chance.randbytes(8)).hexdigest()[: chance.randint(8, 16)]
    elif kind == "chain":
        value, day, name = chance.randrange(25), chance.randint(1, 31), ""
        for place in range(chance.randint(9, 14)):
            value = (value * value + 7 * day + place * place) % 25
            name += chr(97 + value)
    elif kind == "syllables":
        name = "".join(chance.choice("bcdfghklmnprstvz") + chance.choice("aeiou") for _ in range(chance.randint(3, 6)))
        name += chance.choice(("", chance.choice("lmnrst")))
    else:
        known = RARE + COMMON[1::4]
        name = "".join(chance.choice(known) for _ in range(chance.choice((2, 2, 3))))
    return f"{name}.{chance.choices(ENDINGS, (50, 18, 12, 12, 8))[0]}", kind


def table(rows: int, seed: int = 0, share: float = 0.5) -> list[tuple[str, str, str]]:
    """So many different domains: the domain, `ordinary` or `generated`, and the algorithm or nothing.

    Args:
        rows: how many.
        seed: of all chance.
        share: of generated ones.
    """
    chance, found = random.Random(seed), {}
    while len(found) < rows:
        if chance.random() < share:
            domain, kind = made(chance)
            found.setdefault(domain, ("generated", kind))
        else:
            found.setdefault(ordinary(chance), ("ordinary", ""))
    return [(domain, *said) for domain, said in found.items()]


Labelled = list[tuple[str, bool]]
"""Domains, and whether an algorithm made each."""


def labelled(rows: int, seed: int = 0) -> Labelled:
    """So many different domains, half of them generated."""
    return [(domain, kind == "generated") for domain, kind, _ in table(rows, seed)]


def write(path: Path, rows: int, seed: int = 0, share: float = 0.5) -> None:
    """Writes such a table as CSV."""
    lines = [",".join(row) for row in [("domain", "class", "algorithm"), *table(rows, seed, share)]]
    path.write_text("\n".join(lines) + "\n")


def main(small: bool = False) -> str:
    """Fits all models to a table and shows how good they are."""
    import tempfile

    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "domains.csv"
        write(path, 300 if small else 10_000)
        found = charlm.fit_table(path, sequence="domain", label="class", max_steps=20 if small else None)
    return repr(found)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print("domain,class,algorithm")
        wanted = float(sys.argv[2]) if len(sys.argv) > 2 else 0.5
        print("\n".join(",".join(row) for row in table(int(sys.argv[1]), share=wanted)))
    else:
        print(main())
