"""Checks the texts of this directory: are they big enough, free of repetition, and nobody else's words?

    python data/check_texts.py [--against DIRECTORY] [TEXT ...]

Reports for each text its size, vocabulary, share of distinct 40-character passages, compressed size, and with
--against the longest passage that it shares with the files there. Ends with 1 where a bound does not hold.
Known sizes are asked of the three bundled texts alone, the other bounds of every text named.
"""

from __future__ import annotations

import sys
from pathlib import Path

import click
import numpy as np
from charlm.text.measures import compressed_size, distinct_share, longest_shared, whole

from charlm.errors import CharlmError
from charlm.text.corpus import read_corpus

HERE = Path(__file__).parent
LEAST = {"shakespeare.txt": 200_000, "algebra.tex": 250_000, "wiki.xml": 200_000}
DISTINCT = 0.97
SHARED = 50


def check(path: Path, others: list[Path]) -> list[str]:
    """Prints one text's figures; returns what is wrong with it."""
    corpus = read_corpus([path])
    least = LEAST.get(path.name, 0) if path.resolve().parent == HERE.resolve() else 0
    distinct = distinct_share(corpus.ids, whole(corpus.ids), 40)
    bits = 8 * compressed_size(path.read_bytes()) / len(corpus)
    click.echo(
        f"{path.name}: {len(corpus):,} characters, vocabulary {len(corpus.vocab)}, "
        f"{distinct:.2%} of its 40-character passages distinct, {bits:.3f} bits per character by xz -9"
    )
    wrong = []
    if len(corpus) < least:
        wrong.append(f"{path.name} has {len(corpus):,} characters, fewer than {least:,}")
    if distinct < DISTINCT:
        wrong.append(f"{path.name} repeats itself: {distinct:.2%} of its passages are distinct, not {DISTINCT:.0%}")
    for other in others:
        both = read_corpus([path, other])
        first, second = both.documents
        length, at = longest_shared(both.ids, np.array([second]), np.array([first]))
        passage = both.vocab.decode(both.ids[at : at + length])
        click.echo(f"  shares at most {length} characters with {other.name}: {passage!r}")
        if length >= SHARED:
            wrong.append(f"{path.name} and {other.name} share {length} characters: {passage!r}")
    return wrong


@click.command()
@click.option(
    "--against",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Directory of real texts that nothing may be taken from.",
)
@click.argument("texts", nargs=-1, type=click.Path(path_type=Path))
def main(against: Path | None, texts: tuple[Path, ...]) -> None:
    """Check TEXT..., or the three bundled texts."""
    others = sorted(p for p in against.iterdir() if p.suffix in {".txt", ".tex", ".xml"}) if against else []
    wrong = []
    try:
        for path in texts or [HERE / name for name in LEAST]:
            wrong += check(path, others)
    except CharlmError as error:
        raise SystemExit(str(error)) from None
    for sentence in wrong:
        click.echo(sentence, err=True)
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
