"""What `charlm inspect` prints: tables, a text in a unit's colours, values for programs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from charlm.cli.common import note
from charlm.cli.models import where
from charlm.lm.painting import paint

if TYPE_CHECKING:
    from charlm.lm.model import TextModel
    from charlm.recurrent.agreement import Finding
    from charlm.recurrent.atlas import Atlas, Unit
    from charlm.text.text import Part

__all__ = ["as_values", "show_tables", "show_units", "unit_level"]


def show_tables(checkpoint: TextModel, held: Part, atlas: Atlas, findings: Sequence[Finding]) -> None:
    """The units that follow something, and how often gates are closed and open."""
    click.echo(f"{checkpoint.name} reads {len(atlas.ids):,} characters of {held.text.corpus.title}, {held.name} part:")
    if any(finding.found for finding in findings):
        click.echo(f"{'unit':>10}  {'area':>5}  {'control':>7}  follows")
    for finding in findings:
        if finding.found:
            word = "" if finding.rises else " (falls)"
            click.echo(f"{finding.unit!s:>10}  {finding.area:5.3f}  {finding.control:7.3f}  {finding.follows}{word}")
    lost = sorted({finding.follows for finding in findings} - {f.follows for f in findings if f.found})
    if lost:
        note(f"no unit beats the control in following: {', '.join(lost)}")
    if not findings:
        note("there is too little in this text to search for: read more of it (--length), or another one")
    if atlas.gates:
        click.echo(f"{'layer':>5}  gate  below 0.1  above 0.9   most in one unit")
    for item in atlas.gates:
        click.echo(
            f"{item.layer:>5}  {item.gate:<4}  {item.left_H.mean():8.1%}  {item.right_H.mean():9.1%}   "
            f"{item.left_H.max():.1%} and {item.right_H.max():.1%}"
        )


def show_units(atlas: Atlas, chosen: Sequence[Unit], characters: list[str], first: int, *, coloured: bool) -> None:
    """The text once for each unit in its colours, or one line a character with the units' values.

    `first` is the position of the first character in the part that was read.
    """
    rows = [atlas.values_UT[atlas.row(unit), -len(characters) :].astype(float) for unit in chosen]
    if not coloured:
        click.echo("\t".join(["position", "character", *map(str, chosen)]))
        for place, values in enumerate(zip(*rows, strict=True)):
            shown = (repr(characters[place]), *(f"{value:.4f}" for value in values))
            click.echo("\t".join([str(first + place), *shown]))
        return
    for unit, row in zip(chosen, rows, strict=True):
        largest = float(abs(row).max()) or 1.0
        click.echo(f"unit {unit}, from {row.min():.3f} (orange) to {row.max():.3f} (blue):")
        styles = [unit_level(value / largest) for value in row.tolist()]
        click.echo("".join(paint(zip(characters, styles, strict=True))), color=True)


def unit_level(share: float) -> str:
    """The style of a value, given as a share of the largest one.

    >>> unit_level(0.05), unit_level(-0.6), unit_level(1.0)
    ('s0', 'n3', 'p4')
    """
    size = sum(abs(share) >= bound for bound in (0.1, 0.25, 0.5, 0.8))
    return f"{'p' if share > 0 else 'n'}{size}" if size else "s0"


def as_values(
    checkpoint: TextModel,
    held: Part,
    atlas: Atlas,
    findings: Sequence[Finding],
    chosen: Sequence[Unit],
    visible: int,
    start: int,
) -> dict[str, Any]:
    """What `--json` prints: `units` as the search found them, `values` of those that were asked for."""
    return {
        "model": checkpoint.name,
        **where(held),
        "start": start,
        "length": len(atlas.ids),
        "shown_from": start + len(atlas.ids) - visible,
        "units": [
            {
                "unit": str(finding.unit),
                "property": finding.follows,
                "area": finding.area,
                "control": finding.control,
                "found": finding.found,
                "rises": finding.rises,
                "searched_area": finding.searched,
            }
            for finding in findings
        ],
        "gates": [
            {
                "layer": item.layer,
                "gate": item.gate,
                "below_0.1": item.left_H.tolist(),
                "above_0.9": item.right_H.tolist(),
            }
            for item in atlas.gates
        ],
        "values": {str(unit): atlas.values_UT[atlas.row(unit), -visible:].tolist() for unit in chosen},
    }
