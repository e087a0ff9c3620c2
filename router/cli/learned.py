"""``--learned FILE``: begin with what a gateway kept, or what ``motley trace --learned`` wrote."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from router.config.load import MotleyConfig
    from solver.capacity import Believed
    from telemetry.learned import Learned

LearnedOption = Annotated[
    Path | None,
    typer.Option(
        help="Begin with the lengths and the tail that a gateway kept in this file "
        "(telemetry.learned.file), or that motley trace --learned wrote.",
        rich_help_panel="Realism",
    ),
]


def read_known(path: Path | None) -> Learned | None:
    """Read such a file; which parts of it cannot be used is noted on stderr.

    Raises:
        LearnedError: there is no such file, or nothing of it can be used.
    """
    from telemetry.learned_file import read_learned

    if path is None:
        return None
    learned, flaws = read_learned(path)
    for flaw in flaws:
        print(f"note: {path}: {flaw}; the rest is used", file=sys.stderr)
    return learned


def believed_of(learned: Learned | None, config: MotleyConfig, now_unix_s: float) -> Believed:
    """Iteration times by group, as a gateway had learned them of these cards; empty if of none.

    What a simulation or a trace says of speeds is of no card, and counts for nothing.
    """
    from router.config.build import catalogue_belief
    from solver.believed import believed_models
    from telemetry.learning import make_feedback

    if learned is None or learned.origin != "gateway":
        return {}
    fleet, belief = config.fleet.backends, catalogue_belief(config.hardware)
    if not {spec.group for spec in fleet} & {speed.group for speed in learned.speeds}:
        return {}
    feedback = make_feedback(fleet, belief, config.hardware.engine_defaults, calibrate=False)
    feedback.restore(learned.speeds, learned.age_s(now_unix_s), 0.0)
    factors = feedback.corrections()
    return believed_models(
        fleet,
        lambda spec: belief(spec).scaled(
            prefill=factors[spec.name][0], decode=factors[spec.name][1]
        ),
    )
