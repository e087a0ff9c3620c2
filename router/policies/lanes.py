"""All lanes of Motley's policy: who can begin soon, and who is worth waiting for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from operator import attrgetter

from router.domain.protocols import Taken
from router.domain.request import LengthForecast, Request
from router.domain.state import BackendView
from router.policies.ask import Ask, Weights
from router.policies.lane import Lane
from router.policies.prefix_index import PrefixIndex
from router.policies.tail_scale import TailScale

MANY_HOLDERS = 8
TYPICAL_PROMPT_TOKENS = 1000
TYPICAL_OUTPUT = LengthForecast(200.0, 400.0, square_tokens=70_000.0)
NEVER = -math.inf
_key_of = attrgetter("key")
Later = dict[tuple[str, str], tuple[Lane, float]]
"""By reason and group: whom to wait for, and the seconds besides its own prompts."""


class Lanes:
    """One lane a backend, those of a group ordered by the pain of a typical request.

    Args:
        index: who holds which prefix.
        scale, weights: of the pain.
        backlog_s: prefill beyond which a backend is busy.
    """

    def __init__(
        self, index: PrefixIndex, scale: TailScale, weights: Weights, backlog_s: float
    ) -> None:
        self._index, self._scale, self._weights = index, scale, weights
        self._backlog_s = backlog_s
        self._lanes: dict[BackendView, Lane] = {}
        self._mates: dict[str, list[Lane]] = {}
        self._typical: Ask | None = None

    def scale_changed(self) -> None:
        """What is typical costs something else now."""
        self._typical = None

    def as_now(self, view: BackendView, now: float) -> Lane:
        """The lane of a backend as it is now; one for this once, if it has changed since."""
        known = self._lanes.get(view)
        if known is not None and known.version == view.version:
            return known
        lane = Lane(view)
        lane.refresh(now)
        if known is not None:
            lane.take_over(known)
        return lane

    def forget(self, backend: str) -> None:
        """The backend left, or fell ill."""
        for view in [view for view in self._lanes if view.spec.name == backend]:
            lane = self._lanes.pop(view)
            mates = self._mates[lane.group]
            mates.remove(lane)
            if len(mates) == 1:
                mates[0].key = 0.0

    def shortlist(
        self, candidates: Sequence[BackendView], request: Request, now: float
    ) -> tuple[list[Lane], Later]:
        """Who is worth scoring: those that can begin soon, and those worth waiting for.

        The first are the two best of each group by key, and the holders of the prefix; the second
        the soonest of each group of those that are busy, and of those that have no room.
        """
        lane_of, prompt = self._lanes.get, request.prompt_tokens
        limit, overdue, never = now + self._backlog_s, now - self._backlog_s, math.inf
        holders = self._index.holders(request.prefix_hashes)
        first: dict[str, Lane] = {}
        second: dict[str, Lane] = {}
        later: Later = {}
        full: list[Lane] = []
        holding: list[Lane] = []
        for view in candidates:
            lane = lane_of(view)
            if lane is None or lane.version != view.version:
                lane = self._refreshed(view, now)
            if lane.room_tokens < prompt:
                full.append(lane)
                continue
            late_s = lane.late_from_s
            if late_s != never and (late_s < overdue or lane.backlog_ends_s > limit):
                _keep_soonest(later, "busy", lane, 0.0, now)
                continue
            group, key = lane.group, lane.key
            rival = second.get(group)
            if rival is None or key < rival.key:  # most are neither
                best = first.get(group)
                if best is None:
                    first[group] = lane
                elif key < best.key:
                    first[group], second[group] = lane, best
                else:
                    second[group] = lane
            if holders and lane.name in holders:
                holding.append(lane)
        for lane in full if first else ():
            _keep_soonest(later, "full", lane, lane.room_wait_s(prompt), now)
        holding = self._worth_scoring(holding, request.prefix_hashes)
        return [*dict.fromkeys((*holding, *first.values(), *second.values()))], later

    def queue_up(self, later: Later, taken: Sequence[Taken], prompt: int, now: float) -> None:
        """Those that others wait for can be waited for behind them."""
        for queue in taken:
            if queue.prefill_s < math.inf:
                lane = self.lane(queue.backend)
                if lane.version != queue.backend.version:
                    lane = self._refreshed(queue.backend, now)
                room_s = lane.room_wait_s(prompt, queue.prompt_tokens)
                _keep_soonest(later, "taken", lane, queue.prefill_s + room_s, now)

    def _worth_scoring(self, holding: list[Lane], hashes: Sequence[int]) -> list[Lane]:
        """Of many the two best of each group by key: of all, and of those that hold more."""
        if len(holding) <= MANY_HOLDERS:
            return holding
        best = _two_of_each(holding)
        for some in self._index.narrowed(holding, hashes):
            best += _two_of_each(some)
        return best

    def lane(self, view: BackendView) -> Lane:
        """The lane of a backend, perhaps of an older version of its state."""
        lane = self._lanes.get(view)
        if lane is None:
            lane = self._lanes[view] = Lane(view)
            self._mates.setdefault(lane.group, []).append(lane)
        return lane

    def _refreshed(self, view: BackendView, now: float) -> Lane:
        lane = self.lane(view)
        lane.refresh(now)
        mates = self._mates[lane.group]
        if len(mates) > 1:
            if not mates[0].key and mates[0].version >= 0:  # it had nobody to be compared with
                self._rank(mates[0], now)
            self._rank(lane, now)
        return lane

    def _rank(self, lane: Lane, now: float) -> None:
        typical = self._typical
        if typical is None:
            prompt, output = TYPICAL_PROMPT_TOKENS, TYPICAL_OUTPUT
            typical = Ask(prompt, output, 0.0, now, self._scale, self._weights, typical=True)
            self._typical = typical
        typical.now = now
        lane.key = lane.pain(typical, 0)


def _keep_soonest(later: Later, why: str, lane: Lane, besides_s: float, now: float) -> None:
    """Of each group and reason the one whose prompts and what else there is to wait end first."""
    key = why, lane.group
    rival, rival_s = later.get(key, (lane, math.inf))
    if besides_s + lane.wait_s(now) < rival_s + rival.wait_s(now):
        later[key] = lane, besides_s


def _two_of_each(lanes: list[Lane]) -> list[Lane]:
    """The two best of each group by key."""
    groups: dict[str, list[Lane]] = {}
    for lane in lanes:
        groups.setdefault(lane.group, []).append(lane)
    return [lane for mates in groups.values() for lane in sorted(mates, key=_key_of)[:2]]
