"""Whether what a model generates has the form of its text: `python -m benchmarks.forms checkpoints/NAME --form drama`.

- drama: the share of blocks between blank lines that begin with a line `NAME:` (the last block, which is cut off, is
  left out);
- latex: groups `{...}` (those of `\\begin{x}` among them) and environments, how many were opened, and the share of them
  closed in order: by any `\\end`, and by the `\\end` of their own name (`\\{` and `\\}` are no groups; what is still
  open at the end counts as not closed);
- xml: tags, likewise; `<x/>` opens and closes;
- wiki: tags up to the last `</page>`, for the page behind it is cut off.

Each of --seeds texts of --length characters at --temperature is looked at, and the held-out part as the model's
text really goes on, from its first blank line, so long as well: the measure itself must find that in form. Copied: the
longest passage that stands in the training part.
"""

from __future__ import annotations

import argparse
import re
import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from charlm.checkpoint import load
from charlm.cli.common import held_out
from charlm.errors import CharlmError
from charlm.lm.interface import SamplingRule
from charlm.lm.sampling import generate_streams
from charlm.ngrams.index import SuffixIndex, novelty
from charlm.text.text import Part

LATEX = re.compile(r"\\begin\s*\{([^{}]*)\}|\\end\s*\{([^{}]*)\}|\\.|[{}]", re.DOTALL)
TAG = re.compile(r"<(/?)([A-Za-z][\w:.-]*)[^<>]*?(/?)>")
NAME = re.compile(r"[A-Z][A-Za-z .,'-]*:$")


@dataclass(frozen=True)
class Form:
    """How many things were opened or begun, how many of them as they should be, and how many by name too, if names
    are asked for."""

    all: int
    right: int
    named: int | None = None

    @property
    def share(self) -> float:
        return self.right / self.all if self.all else 0.0


def drama(text: str) -> Form:
    """Blocks, and those that begin with a name.

    >>> drama("ANNE:\\nGo.\\n\\nHe went.\\n\\nSecond Guard:\\nHo.\\n\\nCut o")
    Form(all=3, right=2, named=None)
    """
    blocks = [block for block in re.split(r"\n{2,}", text.strip("\n"))[:-1] if block.strip()]
    return Form(len(blocks), sum(bool(NAME.match(block.split("\n")[0])) for block in blocks))


def latex(text: str) -> Form:
    """Groups and environments opened, and those closed in order.

    >>> latex(r"\\begin{proof} {a} \\{ \\end{lemma} {")
    Form(all=5, right=4, named=3)
    """
    events = list(_latex_events(text))
    kinds = _nested((opens, "{" if name == "{" else "environment") for opens, name in events)
    return replace(kinds, named=_nested(events).right)


def xml(text: str) -> Form:
    """Tags opened, and those closed in order.

    >>> xml('<page id="1"><b>x</b><br/><i></page></i> <a')
    Form(all=4, right=3, named=None)
    """
    return _nested(_xml_events(text))


def wiki(text: str) -> Form:
    """Tags opened up to the end of the last whole page, and those closed in order.

    >>> wiki("so</b></page><page><id>1</id></page><page><id>")
    Form(all=2, right=2, named=None)
    """
    whole, end, _ = text.rpartition("</page>")
    return xml(whole + end)


def _latex_events(text: str) -> Iterable[tuple[bool, str]]:
    for found in LATEX.finditer(text):
        begin, end = found.groups()
        if begin is not None:
            yield True, begin
        if begin is not None or end is not None:
            yield from ((True, "{"), (False, "{"))
        elif found[0] in "{}":
            yield found[0] == "{", "{"
        if end is not None:
            yield False, end


def _xml_events(text: str) -> Iterable[tuple[bool, str]]:
    for found in TAG.finditer(text):
        closes, name, empty = found.groups()
        if not closes:
            yield True, name
        if closes or empty:
            yield False, name


def _nested(events: Iterable[tuple[bool, str]]) -> Form:
    """An end closes the innermost that is open under its name; what was opened since stays unclosed for good."""
    open_: list[str] = []
    opened = closed = 0
    for opens, name in events:
        if opens:
            open_.append(name)
            opened += 1
        elif name in open_:
            while open_.pop() != name:
                pass
            closed += 1
    return Form(opened, closed)


FORMS: dict[str, Callable[[str], Form]] = {"drama": drama, "latex": latex, "xml": xml, "wiki": wiki}


def real(held: Part, length: int) -> str:
    """The held-out part as it is, from its first blank line."""
    start, end = held.spans[0]
    text = held.text.corpus.vocab.decode(held.text.corpus.ids[start:end].tolist())
    return text[max(text.find("\n\n"), 0) :][:length]


def main() -> None:
    """Prints a line a seed, medians, and the same of the real text."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--form", choices=sorted(FORMS), required=True)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--length", type=int, default=5000)
    parser.add_argument("--temperature", type=float, default=0.8)
    args = parser.parse_args()
    checkpoint = load(args.directory, device="auto")
    held = held_out(checkpoint, list(checkpoint.source.names), None)
    train = held.text.corpus.parts(checkpoint.source.split)["train"]
    index = SuffixIndex.build(held.text.corpus.ids, train, symbols=len(held.text.corpus.vocab))
    texts = {"held-out text": real(held, args.length)}
    for seed in range(args.seeds):
        rule = SamplingRule(temperature=args.temperature)
        *_, last = generate_streams(checkpoint, [checkpoint.start], length=args.length, rule=rule, seed=seed)
        texts[f"seed {seed}"] = last[0].text
    print("| text | opened or begun | right | by name too | longest copied passage |\n|---|---|---|---|---|")
    found = {name: FORMS[args.form](text) for name, text in texts.items()}
    for name, text in texts.items():
        copied = novelty(index, held.text.corpus.vocab.encode(text)).longest
        print(f"| {name} | {found[name].all} | {_right(found[name])} | {_named(found[name])} | {copied} |")
    generated = [form for name, form in found.items() if name.startswith("seed")]
    shares = [100 * form.share for form in generated if form.all]
    named = None if generated[0].named is None else sum(form.named or 0 for form in generated)
    together = Form(sum(form.all for form in generated), sum(form.right for form in generated), named)
    if shares:
        print(f"\nmedian of the generated ones: {statistics.median(shares):.1f} %, least {min(shares):.1f} %;", end=" ")
    print(f"of all {together.all} in them: {_right(together)}, by name too: {_named(together)}")


def _right(form: Form) -> str:
    return f"{100 * form.share:.1f} %" if form.all else "-"


def _named(form: Form) -> str:
    return f"{100 * form.named / form.all:.1f} %" if form.all and form.named is not None else "-"


if __name__ == "__main__":
    try:
        main()
    except CharlmError as error:
        raise SystemExit(str(error)) from None
