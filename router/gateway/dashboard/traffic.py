"""What finished in the last minute, counted off the path of requests, as outcomes are told."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Container, Iterator
from dataclasses import dataclass, field

from router.domain.outcome import Outcome
from router.gateway.dashboard.views import FlowCell, RequestRow
from telemetry.sliding import SlidingWindow

WINDOW_S = 60.0
SLOTS = 12
RECENT = 40

_Key = tuple[str, str]


@dataclass(slots=True)
class _Second:
    """What finished within one second: requests and output tokens by class and backend."""

    number: int
    counts: dict[_Key, list[int]] = field(default_factory=dict)


class Traffic:
    """An ``Observer`` that keeps a minute of traffic for the page."""

    def __init__(self) -> None:
        self._minute: deque[_Second] = deque()
        self._counts: dict[_Key, list[int]] = {}
        self._recent: deque[Outcome] = deque(maxlen=RECENT)
        self.ttft, self.tpot, self.e2e = (SlidingWindow(WINDOW_S, SLOTS) for _ in range(3))

    def observe(self, outcome: Outcome) -> None:
        """Take note of one finished attempt."""
        self._recent.append(outcome)
        if outcome.status != "completed":
            return
        now = outcome.finished_s
        if not self._minute or self._minute[-1].number < math.floor(now):
            self._minute.append(_Second(math.floor(now)))
        key = outcome.slo_class, outcome.backend
        for counts in (self._minute[-1].counts, self._counts):
            kept = counts.setdefault(key, [0, 0])
            kept[0] += 1
            kept[1] += outcome.output_tokens
        self.e2e.add(outcome.e2e_s, now)
        if outcome.ttft_s is not None:
            self.ttft.add(outcome.ttft_s, now)
        if outcome.tpot_s is not None:
            self.tpot.add(outcome.tpot_s, now)

    def advance(self, now: float) -> None:
        """Forget what is older than a minute."""
        while self._minute and self._minute[0].number <= now - WINDOW_S:
            for key, (requests, tokens) in self._minute.popleft().counts.items():
                kept = self._counts[key]
                kept[0] -= requests
                kept[1] -= tokens
                if not kept[0]:
                    del self._counts[key]

    def totals(self, fleet: Container[str], uptime_s: float) -> tuple[float, float]:
        """Requests and output tokens per second of the backends in the fleet."""
        mine = [kept for (_, backend), kept in self._counts.items() if backend in fleet]
        span_s = _span_s(uptime_s)
        return sum(n for n, _ in mine) / span_s, sum(tokens for _, tokens in mine) / span_s

    def rates(self, uptime_s: float) -> dict[str, tuple[float, float]]:
        """Requests and output tokens per second by backend."""
        span_s = _span_s(uptime_s)
        counts: dict[str, list[int]] = {}
        for (_, backend), (requests, tokens) in self._counts.items():
            kept = counts.setdefault(backend, [0, 0])
            kept[0] += requests
            kept[1] += tokens
        return {name: (n / span_s, tokens / span_s) for name, (n, tokens) in counts.items()}

    def flow(self, groups: dict[str, str]) -> Iterator[FlowCell]:
        """Who served whom; ``groups`` maps the backends of the fleet to their groups."""
        counts: dict[_Key, list[int]] = {}
        for (slo_class, backend), (requests, tokens) in self._counts.items():
            kept = counts.setdefault((slo_class, groups.get(backend, "(gone)")), [0, 0])
            kept[0] += requests
            kept[1] += tokens
        for (slo_class, group), (requests, tokens) in sorted(counts.items()):
            yield FlowCell(slo_class, group, requests, tokens)

    def p99(self, window: SlidingWindow, now: float) -> float | None:
        """P99 of the last minute."""
        return window.quantile(0.99, now)

    def recent(self, now: float) -> Iterator[RequestRow]:
        """The last that ended, newest first."""
        for outcome in reversed(self._recent):
            yield RequestRow(
                outcome.request_id,
                outcome.slo_class,
                outcome.model,
                outcome.backend,
                outcome.status,
                max(0.0, now - outcome.finished_s),
                outcome.question_tokens,
                outcome.answer_tokens,
                outcome.ttft_s,
                outcome.e2e_s,
                _finite(outcome.predicted_ttft_s),
                _finite(_predicted_e2e_s(outcome)),
            )


def _span_s(uptime_s: float) -> float:
    return max(1.0, min(WINDOW_S, uptime_s))


def _predicted_e2e_s(outcome: Outcome) -> float:
    later = max(0.0, outcome.predicted_output_tokens - 1.0)
    return outcome.predicted_ttft_s + later * outcome.predicted_tpot_s


def _finite(value: float) -> float | None:
    return value if abs(value) < float("inf") else None
