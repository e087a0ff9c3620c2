"""Those who learn while a gateway serves: they are told what was known before, and asked again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from router.dispatcher import Dispatcher
from router.gateway.prompt_size import PromptSizer
from router.perf.length import BucketLengthPredictor
from router.perf.length_kept import LengthCell
from telemetry.feedback import Feedback
from telemetry.learned import Learned
from telemetry.speeds import Speed


@dataclass(frozen=True, slots=True)
class Pupils:
    """Those who learn.

    Attributes:
        lengths, prompts: of answers and prompts.
        feedback: speeds; ``None`` where the configuration forbids it.
        dispatcher: has the policy, and hears of what it knew.
        policy: its name now.
    """

    lengths: BucketLengthPredictor
    prompts: PromptSizer
    feedback: Feedback | None
    dispatcher: Dispatcher
    policy: Callable[[], str]

    def restore(self, learned: Learned, now_unix_s: float, now: float) -> dict[str, int]:
        """Know it again, as far as nothing newer is known; how much of what that was."""
        away_s = learned.age_s(now_unix_s)
        taken = {
            "lengths": self.lengths.restore(learned.lengths, keep=learned.lengths_keep(now_unix_s)),
            "speeds": 0,
            "prompts": self.prompts.restore(learned.prompts),
        }
        if self.feedback is not None and learned.origin == "gateway":
            taken["speeds"] = self.feedback.restore(learned.speeds, away_s, now)
            for name, (prefill, decode) in self.feedback.changes().items():
                self.dispatcher.correct(name, prefill=prefill, decode=decode, now=now)
        known = learned.policies.get(self.policy())
        taken["policies"] = 0
        if known and not self.dispatcher.arrived:
            self.dispatcher.recall(known, now)
            taken["policies"] = int(bool(self.dispatcher.known()))
        return taken

    def learned(self, lengths: list[LengthCell], speeds: list[Speed], unix_s: float) -> Learned:
        """All of it, to be written; ``speeds`` are the feedback's, or those that nobody used."""
        known = self.dispatcher.known()
        return Learned(
            "gateway",
            unix_s,
            lengths,
            speeds,
            self.prompts.sums(),
            {self.policy(): known} if known else {},
        )


@dataclass(slots=True)
class Recalled:
    """What was known again.

    Attributes:
        file: where from.
        origin, written_unix_s: of what was in it.
        counts: how much of what was taken over.
    """

    file: str
    origin: str
    written_unix_s: float
    counts: dict[str, int] = field(default_factory=dict)
