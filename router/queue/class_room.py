"""The router's queue when service classes are scheduled: one lane per class and model.

Between lanes the earliest latest-start goes first: the time by which a request must be sent to
keep its targets (deadline minus predicted service, so the order never changes while it waits).
Requests without a target, and those whose target nobody can meet, come after all others.

Inside a lane tenants share by weight, by start-time fair queueing (Goyal, Vin, Cheng, SIGCOMM
1996): a request gets the start tag ``max(virtual time, finish tag of its tenant)``, its tenant the
finish tag ``start + work / weight``, and the least start tag goes first. A tenant that floods the
lane waits behind its own flood only.

Ageing: of the work sent while somebody waits, a share is kept for those who have waited long
without a target that would bring them forward; so nobody starves (``credit_s``).
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from heapq import heappop, heappush

from router.domain.slo import Slo
from router.queue.waiting_room import Waiting

LaneKey = tuple[str, str]
"""Class and model."""
_CREDIT_LIMIT = 30.0
_SPARE_TENANTS = 256
_LOOK_AHEAD = 8


@dataclass(slots=True)
class Entry(Waiting):
    """One request in the scheduler, queued or sent and not yet answered.

    Attributes:
        slo: its targets.
        urgent: whether it has a target that can be met.
        latest_start_s: when it must be sent to meet it; its arrival if it is not urgent.
        work_s: what it costs, in engine-seconds of the average backend.
        tag: start tag in its lane, and a number that breaks ties.
        left: backends, by index, that it was taken back from.
        again_s: from then on it may go to one of those, if there is no other.
    """

    slo: Slo
    urgent: bool
    latest_start_s: float
    work_s: float
    tag: tuple[float, int] = (0.0, 0)
    left: frozenset[int] = frozenset()
    again_s: float = 0.0

    @property
    def lane(self) -> LaneKey:
        """Where it waits."""
        return self.request.slo_class, self.request.model


class Lane:
    """The requests of one class for one model, fair between tenants."""

    __slots__ = ("_finish", "_virtual", "backlog_s", "entries", "work_s")

    def __init__(self) -> None:
        self.entries: list[tuple[tuple[float, int], Entry]] = []
        self.backlog_s: dict[str, float] = {}
        self.work_s = 0.0
        self._finish: dict[str, float] = {}
        self._virtual = 0.0

    def enter(self, entry: Entry, weight: float, number: int) -> None:
        """Queue it; one that was taken back keeps the tag it had, or goes first if that is over.

        (Virtual time begins anew in a lane that was empty.)
        """
        tenant = entry.request.tenant
        if entry.tag[1] == 0:
            start = max(self._virtual, self._finish.get(tenant, 0.0))
            entry.tag = (start, number)
            self._finish[tenant] = start + entry.work_s / weight
        elif entry.tag[0] > self._virtual:
            entry.tag = (self._virtual, entry.tag[1])
        insort(self.entries, (entry.tag, entry), key=_tag)
        self.backlog_s[tenant] = self.backlog_s.get(tenant, 0.0) + entry.work_s
        self.work_s += entry.work_s

    def leave(self, entry: Entry, *, sent: bool) -> None:
        """Take it out; virtual time follows what is sent. The room drops a lane that is empty."""
        entries, tenant = self.entries, entry.request.tenant
        del entries[bisect_left(entries, entry.tag, key=_tag)]
        if sent:
            self._virtual = max(self._virtual, entry.tag[0])
        self.work_s -= entry.work_s
        left_s = self.backlog_s.pop(tenant, 0.0) - entry.work_s
        if left_s > 1e-9:  # what rounding leaves, and work too small to count, is nothing
            self.backlog_s[tenant] = left_s
        if len(self._finish) > 2 * (len(entries) + _SPARE_TENANTS):
            self._forget_idle()

    def ahead_s(self, tenant: str, work_s: float, weight_of: Mapping[str, float]) -> float:
        """Work that is served before a new request of this tenant, in the fluid limit.

        By the time its own backlog is served, every other tenant has got its share of that time,
        or all it had.
        """
        mine = self.backlog_s.get(tenant, 0.0)
        turns = (mine + work_s) / weight_of.get(tenant, 1.0)
        others = (
            min(backlog, turns * weight_of.get(name, 1.0))
            for name, backlog in self.backlog_s.items()
            if name != tenant
        )
        return mine + sum(others)

    def _forget_idle(self) -> None:
        """Of the tenants that have nothing here, keep those that had most beyond their share."""
        idle = [(f, t) for t, f in self._finish.items() if t not in self.backlog_s]
        for _, tenant in sorted(idle)[:-_SPARE_TENANTS]:
            del self._finish[tenant]


class ClassRoom:
    """All lanes, with deadlines and O(log n) entry and exit.

    Args:
        capacity: requests it holds at most.
        weights: share of each tenant inside a class; 1 for one that is not named.
        aged_after_s: how long one without a target waits until it counts as aged.
        aged_share: share of the work sent that is kept for the aged.
    """

    def __init__(
        self,
        capacity: int,
        weights: Mapping[str, float],
        *,
        aged_after_s: float = 60.0,
        aged_share: float = 0.1,
    ) -> None:
        self._capacity = capacity
        self.weights = weights
        self._aged_after_s = aged_after_s
        self._aged_share = aged_share
        self._entries: dict[str, Entry] = {}
        self.lanes: dict[LaneKey, Lane] = {}
        self._deadlines: list[tuple[float, int, str]] = []
        self._number = 0
        self.credit_s = 0.0

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, request_id: str) -> bool:
        return request_id in self._entries

    def __iter__(self) -> Iterator[Entry]:
        return iter(list(self._entries.values()))

    def get(self, request_id: str) -> Entry | None:
        """A request that waits here."""
        return self._entries.get(request_id)

    @property
    def full(self) -> bool:
        """Whether only the urgent may still enter."""
        return len(self._entries) >= self._capacity

    def waits_for(self, model: str) -> bool:
        """Whether anybody waits for this model."""
        return any(name == model for _, name in self.lanes)

    def enter(self, entry: Entry) -> None:
        """Queue a request."""
        self._number += 1
        lane = self.lanes.get(entry.lane)
        if lane is None:
            lane = self.lanes[entry.lane] = Lane()
        lane.enter(entry, self.weights.get(entry.request.tenant, 1.0), self._number)
        self._entries[entry.request.request_id] = entry
        heappush(self._deadlines, (entry.deadline_s, self._number, entry.request.request_id))

    def leave(self, request_id: str, *, sent: bool = False) -> Entry | None:
        """Take a request out; ``None`` if it does not wait here."""
        entry = self._entries.pop(request_id, None)
        if entry is None:
            return None
        lane = self.lanes[entry.lane]
        lane.leave(entry, sent=sent)
        if not lane.entries:
            del self.lanes[entry.lane]  # names that clients invent are not remembered
        return entry

    def expired(self, now: float) -> list[Entry]:
        """Those who have waited as long as they may, in order; they stay until they leave."""
        found: dict[str, Entry] = {}  # one that came back stands in the heap twice
        while self._deadlines and self._deadlines[0][0] <= now:
            _, _, request_id = heappop(self._deadlines)
            entry = self._entries.get(request_id)
            if entry is not None and entry.deadline_s <= now:
                found[request_id] = entry
        return list(found.values())

    def next_deadline_s(self) -> float:
        """Earliest deadline; infinity when nobody waits."""
        heap = self._deadlines
        while heap:
            entry = self._entries.get(heap[0][2])
            if entry is not None and entry.deadline_s == heap[0][0]:
                return heap[0][0]
            heappop(heap)
        return math.inf

    def surplus(self) -> list[Entry]:
        """Who has to go because the urgent took their places: the last of the others."""
        over = len(self._entries) - self._capacity
        if over <= 0:
            return []
        idle = [e for lane in self.lanes.values() for _, e in lane.entries if not e.urgent]
        return sorted(idle, key=lambda e: e.tag[1], reverse=True)[:over]

    def paid(self, entry: Entry, now: float) -> None:
        """Work was sent while somebody waits: the aged earn their share of it, or spend it."""
        most = self._aged_share * _CREDIT_LIMIT
        earned = self._aged_share * entry.work_s
        if self.aged(entry, now):
            earned -= entry.work_s
        self.credit_s = min(max(self.credit_s + earned, -most), most)

    def aged(self, entry: Entry, now: float) -> bool:
        """Whether it has waited long and no target will bring it forward."""
        return not entry.urgent and now - entry.request.arrival_s >= self._aged_after_s

    def rank(self, entry: Entry, now: float) -> tuple[int, float]:
        """Who goes first; the least does."""
        if entry.urgent:
            return 1, entry.latest_start_s
        if self.credit_s > 0.0 and self.aged(entry, now):
            return 0, entry.request.arrival_s
        return 2, entry.request.arrival_s

    def turns(self, now: float) -> Turns:
        """Whose turn it is, once through the room."""
        return Turns(self, now)


class Turns:
    """Goes through the room in order of rank, lane by lane in order of fairness."""

    __slots__ = ("_now", "_place", "_room")

    def __init__(self, room: ClassRoom, now: float) -> None:
        self._room, self._now = room, now
        self._place = dict.fromkeys(room.lanes, 0)

    def next(self) -> Entry | None:
        """The next to be tried; ``None`` when all have had their chance."""
        best: Entry | None = None
        best_rank = (3, 0.0)
        for key, place in self._place.items():
            lane = self._room.lanes.get(key)
            if lane is None or place >= len(lane.entries):
                continue
            entry = lane.entries[place][1]
            rank = self._room.rank(entry, self._now)
            if rank < best_rank:
                best, best_rank = entry, rank
        return best

    def stays(self, entry: Entry) -> None:
        """It must wait on; after so many of a lane the rest is not asked."""
        place = self._place[entry.lane] + 1
        if place >= _LOOK_AHEAD:
            del self._place[entry.lane]
        else:
            self._place[entry.lane] = place


def _tag(item: tuple[tuple[float, int], Entry]) -> tuple[float, int]:
    return item[0]
