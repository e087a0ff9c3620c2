"""What ``motley check`` says of the file in which what was learned is kept."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from router.config.load import MotleyConfig
    from telemetry.learned import Learned


@dataclass(slots=True)
class About:
    """What is so, and what looks wrong."""

    facts: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def about_learned(config: MotleyConfig) -> About:
    """What is kept over a restart, from when, and whether it can be written."""
    from router.domain.errors import LearnedError
    from telemetry.learned_file import read_learned

    section = config.telemetry.learned
    if section is None:
        return About(["what is learned is lost with a restart (telemetry.learned.file keeps it)"])
    about, path = About(), Path(os.path.realpath(section.file))
    if not os.access(path.parent, os.W_OK | os.X_OK):
        about.warnings.append(
            f"telemetry.learned.file: {path.parent} is no folder that can be written to, so what "
            "is learned is lost with a restart: make it, or name another file"
        )
    if not os.path.exists(path):
        about.facts.append(f"what is learned is kept in {section.file}; there is nothing yet")
        return about
    try:
        learned, flaws = read_learned(path)
    except LearnedError as error:
        about.warnings.append(
            f"telemetry.learned.file: {error}; the start will be cold and the file put aside"
        )
        return about
    about.warnings += [
        f"telemetry.learned.file: {path}: {flaw}; the rest is used and the file put aside"
        for flaw in flaws
    ]
    about.facts.append(f"what is learned is kept in {section.file}: {_told(config, learned)}")
    return about


def _told(config: MotleyConfig, learned: Learned) -> str:
    from router.config.build import catalogue_belief
    from telemetry.speeds import Before, card_of

    belief, before = catalogue_belief(config.hardware), Before(learned.speeds)
    fleet = config.fleet.backends
    known = sum(before.claim(s.name, card_of(s), belief(s), 0.0) is not None for s in fleet)
    minutes = learned.age_s(time.time()) / 60.0
    return (
        f"written by a {learned.origin} {minutes:.0f} minutes ago; {len(learned.lengths)} cells of "
        f"lengths, speeds of {known} of the {len(fleet)} backends"
    )
