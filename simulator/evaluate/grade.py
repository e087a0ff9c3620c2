"""What one answer to one item is worth."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from simulator.evaluate import scores
from simulator.evaluate.items import Asked, Chat, Code, Qa, Reasoning
from simulator.evaluate.sandbox import Verdict

if TYPE_CHECKING:
    from simulator.evaluate.minilm import MiniLm

RunCode = Callable[[str, str], Verdict]


@dataclass(frozen=True, slots=True)
class Grade:
    """One answer's worth.

    Attributes:
        score: 0 to 1; what counts.
        parts: other figures of it, such as ``exact``.
        why: what was wrong, where that needs words.
    """

    score: float
    parts: dict[str, float] = field(default_factory=dict)
    why: str = ""


@dataclass(slots=True)
class Grader:
    """Grades answers of every category.

    Args:
        run_code: runs a function and its asserts.
        embedder: for chat; ``None`` if no chat will be graded.
    """

    run_code: RunCode
    embedder: MiniLm | None = None

    def grade(self, asked: Asked, answer: str) -> Grade:
        """Grade one answer."""
        item = asked.item
        said = scores.without_thoughts(answer)
        match item:
            case Qa():
                parts = {"exact": scores.exact_match(said, item.answers)}
                return Grade(scores.f1(said, item.answers), parts)
            case Reasoning():
                return Grade(scores.same_number(said, item.answer))
            case Code():
                verdict = self.run_code(scores.code_in(said), item.tests)
                return Grade(float(verdict.passed), why=verdict.why)
            case Chat():
                return Grade(self._similarity(said, item.references))

    def _similarity(self, said: str, references: Sequence[str]) -> float:
        """Cosine to the nearest reference; what points away is worth nothing."""
        assert self.embedder is not None
        if not said:
            return 0.0
        vectors = self.embedder.embed([said, *references])
        return min(1.0, max(0.0, float((vectors[1:] @ vectors[0]).max())))
