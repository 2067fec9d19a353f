"""`charlm next`: the distribution of the next character after a history."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from charlm.cli.common import echo_json, json_option
from charlm.errors import OptionError

if TYPE_CHECKING:
    from charlm.lm.interface import LanguageModel


@click.command("next")
@click.argument("model")
@click.argument("history")
@click.option("--top", type=click.IntRange(1), metavar="N", help="Show the N most probable characters only.")
@json_option
def next_command(model: str, history: str, top: int | None, as_json: bool) -> None:
    """Show how probable each character is in MODEL after the text HISTORY."""
    from charlm.cli.models import open_model

    if not history:
        raise OptionError("name a history of at least one character, such as ello")
    checkpoint = open_model(model, "cpu")
    used, found = _distribution(checkpoint.model, checkpoint.model.vocab.encode(history).tolist())
    shown = found[:top]
    text = checkpoint.model.vocab.decode(used)
    if as_json:
        keys = ("char", "probability", "count")
        distribution = [dict(zip(keys, item, strict=True)) for item in shown]
        echo_json({"history": history, "history_used": text, "distribution": distribution})
        return
    if text != history:
        click.echo(f"after {text!r}, as much of {history!r} as the model uses:")
    total = sum(count for *_, count in found if count is not None)
    for symbol, probability, count in shown:
        counted = "" if count is None else f"  {count:>9,} of {total:,}"
        click.echo(f"{symbol!r:>6}  {probability:.6f}{counted}")


def _distribution(model: LanguageModel, ids: list[int]) -> tuple[list[int], list[tuple[str, float, Any]]]:
    """The part of the history that counts, and (symbol, probability, count) by falling probability."""
    import torch

    from charlm.ngrams.model import NGramLM

    if isinstance(model, NGramLM):
        used, found = model.next_distribution(ids)
        return used, [(model.vocab.symbol(id), p, count) for id, p, count in found]
    with torch.no_grad():
        logp_TBV, _ = model.logprobs(torch.tensor(ids).unsqueeze(-1), model.initial_state(1))
    p_V = logp_TBV[-1, 0].double().exp()
    order = p_V.argsort(descending=True, stable=True).tolist()
    return ids, [(model.vocab.symbol(id), float(p_V[id]), None) for id in order]
