"""Static ILP split (Mélange): fixed shares of each request size to each kind of hardware.

Mélange's ILP assigns slices of each size bucket to GPU types so that no type is overloaded; what
its authors compute and throw away, the assignment, is used here: a request goes to a kind drawn by
its bucket's shares, and to any member of it. Blind to the state of the moment by design. With the
fleet given, the ILP is a makespan problem; slices are placed longest first, each where the highest
utilization grows least, again after every ``REPLAN`` requests of observed demand. (Griggs et al.,
arXiv 2404.14527; load of a request = its engine-seconds at a batch of 16.)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from router.domain.request import Request
from router.domain.state import BackendView
from router.policies.context import PolicyContext

BATCH = 16
SLICES = 4
REPLAN = 500

Bucket = tuple[int, int]
"""Octaves of prompt and forecast output."""


class MelangeStaticSplit:
    """A draw by the shares of the last plan; before there is one, by the bucket's throughput."""

    def __init__(self, context: PolicyContext) -> None:
        self._rng = context.rng
        self._demand: Counter[Bucket] = Counter()
        self._shares: dict[Bucket, dict[str, float]] = {}
        self._seen = 0

    def choose(
        self,
        request: Request,
        candidates: Sequence[BackendView],
        now: float,  # noqa: ARG002
    ) -> BackendView | None:
        """A kind by its share, then any member."""
        bucket = _bucket(request)
        self._demand[bucket] += 1
        self._seen += 1
        kinds: dict[str, list[BackendView]] = {}
        for view in candidates:
            kinds.setdefault(view.spec.group, []).append(view)
        if self._seen % REPLAN == 0:
            self._plan(kinds)
        shares = self._shares.get(bucket, {})
        weights = [shares.get(group, 0.0) for group in kinds]
        if not sum(weights):
            weights = [len(m) / _engine_s(m[0], bucket) for m in kinds.values()]
        members = self._rng.choices(list(kinds.values()), weights)[0]
        return self._rng.choice(members)

    def _plan(self, kinds: dict[str, list[BackendView]]) -> None:
        """Place the slices of all buckets, the heaviest first."""
        load = dict.fromkeys(kinds, 0.0)
        cost = {
            (bucket, group): count * _engine_s(members[0], bucket) / (SLICES * len(members))
            for bucket, count in self._demand.items()
            for group, members in kinds.items()
        }
        heaviest = sorted(self._demand, key=lambda b: -min(cost[b, group] for group in kinds))
        self._shares = {bucket: dict.fromkeys(kinds, 0.0) for bucket in self._demand}
        for bucket in heaviest:
            for _ in range(SLICES):
                group = min(kinds, key=lambda g: (load[g] + cost[bucket, g], g))
                load[group] += cost[bucket, group]
                self._shares[bucket][group] += 1.0 / SLICES


def _bucket(request: Request) -> Bucket:
    output = int(max(request.forecast.mean_tokens, 1.0))
    return request.prompt_tokens.bit_length(), output.bit_length()


def _engine_s(view: BackendView, bucket: Bucket) -> float:
    """Engine-seconds of a request from the middle of a bucket."""
    prompt, output = (0.75 * 2.0**octave for octave in bucket)
    cost = view.cost
    decode_s = cost.iteration_s(0, BATCH, BATCH * (prompt + 0.5 * output)) / BATCH
    return cost.prompt_s(prompt) + output * decode_s
