"""Every error Motley raises on purpose, drawn as a tree.

MotleyError
├── BadInputError              the user can mend it: names the thing and the remedy
│   ├── ConfigError            a YAML file, a flag, an environment variable
│   │   ├── UnknownNameError   no such policy, GPU, model, engine (suggests near names)
│   │   └── ImpossibleFleetError   a model that does not fit, an engine that will not run
│   ├── TraceError             a trace file or one line of it
│   ├── LearnedError           a file of what was learned before
│   ├── DamagedLogError        a decision log that cannot be replayed
│   └── WorkloadError          nothing to plan for, or numbers that make no sense
├── PlanError                  the planner has no usable answer
│   ├── InfeasiblePlanError    says which constraint and by how much
│   └── SolverError            the solver is missing, timed out or answered nonsense
├── PollError                  an error of ours in the midst of the queue; says what stands
└── ReplayError                a decision log does not reproduce its own choices
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from router.domain.decision import Assign, Reject
    from router.domain.request import Request


class MotleyError(Exception):
    """Base of every error that Motley raises on purpose."""


class BadInputError(MotleyError):
    """Input that the user can mend; the message names the thing and the remedy."""


class ConfigError(BadInputError):
    """A configuration value that cannot be used."""


class UnknownNameError(ConfigError):
    """A name that is in no registry.

    Args:
        kind: what was looked up, in the singular ("policy", "gpu").
        name: what the user wrote.
        known: the names that exist.
        remedy: what else to do, as a sentence.
    """

    def __init__(self, kind: str, name: str, known: Iterable[str], *, remedy: str = "") -> None:
        self.kind, self.name = kind, name
        choices = sorted(known)
        near = _near(name, choices)
        hint = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
        said = f"unknown {kind} {name!r}.{hint} Known: {', '.join(choices) or 'none'}."
        super().__init__(f"{said} {remedy}" if remedy else said)


def _near(name: str, choices: Sequence[str]) -> list[str]:
    """What begins with the name, as ``a100-40`` and ``a100-80`` do; else the nearest spelling."""
    longer = [choice for choice in choices if name and choice.startswith(f"{name}-")]
    return longer if 0 < len(longer) <= 3 else get_close_matches(name, choices, n=1)


class ImpossibleFleetError(ConfigError):
    """A backend that cannot run what it was told to run."""


class LearnedError(BadInputError):
    """A file of what was learned before that cannot be used."""


class TraceError(BadInputError):
    """A trace file, or one line of it, that cannot be read."""

    def __init__(self, message: str, *, path: str = "", line: int | None = None) -> None:
        self.path, self.line = path, line
        where = f"{path}:{line}: " if line is not None else (f"{path}: " if path else "")
        super().__init__(where + message)


class DamagedLogError(BadInputError):
    """A decision log, or one line of it, that cannot be replayed."""


class WorkloadError(BadInputError):
    """A workload that cannot be planned for."""


class PlanError(MotleyError):
    """The planner has no usable answer."""


class InfeasiblePlanError(PlanError):
    """No plan satisfies the constraints; the message says which one and by how much."""


class SolverError(PlanError):
    """The solver is missing, ran out of time or answered nonsense."""


class PollError(MotleyError):
    """An error of ours with one of those who wait; it is the cause of this one.

    Args:
        request: whose turn it was.
        decided: who was decided before, and how.
    """

    def __init__(self, request: Request, decided: list[tuple[Request, Assign | Reject]]) -> None:
        self.request, self.decided = request, decided
        super().__init__(f"request {request.request_id} could not be decided")


class ReplayError(MotleyError):
    """A decision log that does not reproduce its own choices."""
