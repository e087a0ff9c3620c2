"""Forecasts of output length, learned from what finished before (never the truth, I6).

A request falls into a leaf (model, tenant, prompt bucket, limit bucket). Each leaf shrinks towards
its parent, that towards its own, up to the prior::

    estimate(cell) = (n * own(cell) + k * estimate(parent)) / (n + k)

with ``n`` the observations behind the cell's own figures, bounded so that old ones fade. A leaf
with little data therefore speaks for its tenant, and a new tenant for its model.

Short answers are over first. Who learned of the finished ones alone would think all answers short
whenever traffic begins or turns to another kind, and send the long ones to slow cards; so until it
is over, a request counts in its cells as long as was forecast.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from weakref import WeakValueDictionary

from router.domain.outcome import Outcome
from router.domain.request import NO_FORECAST, LengthForecast, Request
from router.perf.length_kept import LEAF_DEPTH, CellKey, Doubt, LengthCell

AZURE_CONVERSATION = LengthForecast(211.1, 424.0, square_tokens=71_000.0)
"""Output lengths of the Azure LLM inference trace 2023, conversation service (19,366 requests;
Patel et al., Splitwise, ISCA 2024): what an unknown chat workload looks like."""

_QUANTILE = 0.9


class ConstantLengthPredictor:
    """Says the same of every request; what a router without learning knows.

    Args:
        always: the forecast, still capped by each request's own limit.
    """

    def __init__(self, always: LengthForecast = AZURE_CONVERSATION) -> None:
        self._forecast = always

    def forecast(self, request: Request) -> LengthForecast:
        """The constants, capped by ``max_tokens``."""
        limit, always = request.max_tokens, self._forecast
        if limit is None or limit >= always.p90_tokens:
            return always
        return LengthForecast(
            min(always.mean_tokens, limit), limit, min(always.square_tokens, limit * limit)
        )

    def observe(self, outcome: Outcome) -> None:
        """Learns nothing."""


class BucketLengthPredictor:
    """Mean and 90th percentile by (model, tenant, prompt bucket, limit bucket), with shrinkage.

    Buckets are half octaves of the prompt length and octaves of ``max_tokens``. A forecast and an
    observation cost one dictionary look-up and a walk over four cells.

    Args:
        prior: forecast before any data.
        strength: observations that a parent's estimate is worth to its child.
        memory: observations a cell remembers; older ones fade exponentially.
        max_leaves: leaves kept; the one not observed for longest is forgotten first, so that
            tenants a client invents cannot fill the memory.
    """

    def __init__(
        self,
        prior: LengthForecast = AZURE_CONVERSATION,
        *,
        strength: float = 10.0,
        memory: float = 500.0,
        max_leaves: int = 4096,
    ) -> None:
        self._strength = strength
        self._memory = memory
        self._max_leaves = max_leaves
        self._root = _Cell(None, prior.mean_tokens, prior.p90_tokens, prior.square_tokens)
        self._leaves: OrderedDict[CellKey, _Cell] = OrderedDict()
        self._learned = 0
        # A parent lives as long as a leaf below it does.
        self._parents: WeakValueDictionary[CellKey, _Cell] = WeakValueDictionary()
        self._begun: dict[str, tuple[_Cell, LengthForecast]] = {}
        self._doubts: dict[str, Doubt] = {}

    def __len__(self) -> int:
        return len(self._leaves)

    def forecast(self, request: Request) -> LengthForecast:
        """Mean and 90th percentile of the output tokens, capped by ``max_tokens``."""
        limit = request.max_tokens
        cell = self._leaf(_key(request.model, request.tenant, request.prompt_tokens, limit))
        learned, asked, told = cell.told
        if learned == self._learned and asked == limit:
            return told
        mean, p90, square = cell.estimate(self._strength)
        if limit is not None:
            mean, p90, square = min(mean, limit), min(p90, limit), min(square, limit * limit)
        told = LengthForecast(mean, p90, max(square, mean * mean))
        cell.told = (self._learned, limit, told)
        return told

    def begun(self, request: Request) -> None:
        """An attempt was sent: until it is over, it counts as long as was forecast.

        What is as expected teaches nothing, so forecasts stay what they were.
        """
        if request.carried_tokens:  # what is left of an answer is no answer of its kind
            return
        prompt, limit = request.prompt_tokens, request.max_tokens
        cell = self._leaf(_key(request.model, request.tenant, prompt, limit))
        self._begun[request.request_id] = cell, request.forecast
        cell.expect(request.forecast, 1)

    def observe(self, outcome: Outcome) -> None:
        """Learn from a completed request; others say too little about length."""
        cell, forecast = self._begun.pop(outcome.request_id, (None, None))
        if cell is not None and forecast is not None:
            cell.expect(forecast, -1)
            self._learned += 1  # that it is gone, if no more
        if outcome.status != "completed" or outcome.output_tokens < 1:
            return
        self._learned += 1
        limit, tokens = outcome.max_tokens, outcome.answer_tokens
        key = _key(outcome.model, outcome.tenant, outcome.question_tokens, limit)
        if outcome.model in self._doubts:
            self._hold_against(key, tokens)
        leaf = self._leaf(key)
        leaf.learn(tokens, self._memory)
        truncated = limit is not None and tokens >= limit
        for cell in leaf.above[1:]:
            # Cut off by the client's own limit: its parents hear "at least this long".
            cell.learn(max(tokens, cell.mean) if truncated else tokens, self._memory)

    def cells(self) -> list[LengthCell]:
        """What was learned: leaves, the one not observed for longest first, then their parents.

        What is under way is not in it: that is about the moment.
        """
        return list(self.each_cell())

    def each_cell(self) -> Iterator[LengthCell]:
        """The same one by one, for who has other things to do in between."""
        for key, cell in [*self._leaves.items(), *self._parents.items()]:
            if cell.weight:
                yield LengthCell(key, cell.weight, cell.mean, cell.p90, cell.square)

    def restore(self, cells: Iterable[LengthCell], *, keep: float = 1.0) -> int:
        """Know again what ``cells`` told; nothing that was learned since is touched.

        Args:
            cells: as ``cells`` gave them, parents after their leaves.
            keep: share of each weight that still counts.

        Returns:
            How many cells were taken over.
        """
        taken = 0
        cell: _Cell | None
        for told in cells:
            if len(told.key) == LEAF_DEPTH:
                cell = self._leaves.get(told.key) or self._grow(told.key)
            else:
                cell = self._parents.get(told.key)
            if cell is None or cell.weight:  # no leaf stands below it, or it knows better
                continue
            cell.weight = min(told.weight * keep, self._memory)
            cell.mean, cell.p90, cell.square = told.mean_tokens, told.p90_tokens, told.square_tokens
            taken += 1
            self._doubts.setdefault(str(told.key[0]), Doubt())
        self._learned += 1
        return taken

    def _hold_against(self, key: CellKey, tokens: int) -> None:
        """Hold an answer against what was known before a restart; forget that if it is wrong."""
        model = str(key[0])
        doubt = self._doubts[model]
        doubt.hear(tokens, key, self._leaf(key).estimate(self._strength)[0])
        if doubt.justified:
            for leaf in [leaf for leaf in self._leaves if leaf[0] == model]:
                del self._leaves[leaf]
            for parent in [parent for parent in self._parents if parent[0] == model]:
                self._parents.pop(parent, None)
        if doubt.justified or doubt.over:
            del self._doubts[model]

    def _leaf(self, key: CellKey) -> _Cell:
        leaf = self._leaves.get(key)
        if leaf is None:
            return self._grow(key)
        self._leaves.move_to_end(key)
        return leaf

    def _grow(self, key: CellKey) -> _Cell:
        if len(self._leaves) >= self._max_leaves:
            self._leaves.popitem(last=False)
        parent = self._root
        for depth in range(1, LEAF_DEPTH):
            known = self._parents.get(key[:depth])
            if known is None:
                known = _Cell(parent, *parent.estimate(self._strength))
                self._parents[key[:depth]] = known
            parent = known
        leaf = _Cell(parent, *parent.estimate(self._strength))
        self._leaves[key] = leaf
        return leaf


class _Cell:
    """Running mean and 90th percentile of one cell; ``weight`` is 0 until it has seen something.

    Attributes:
        above: the cells that it shrinks towards, the root first; the root has none.
        told: the last forecast made of it: after how much was learned, for which limit, and what.
        opened: requests under way.
        open_mean, open_p90, open_square: sums over them, as forecast.
    """

    __slots__ = (
        "__weakref__",
        "above",
        "mean",
        "open_mean",
        "open_p90",
        "open_square",
        "opened",
        "p90",
        "square",
        "told",
        "weight",
    )

    def __init__(self, parent: _Cell | None, mean: float, p90: float, square: float) -> None:
        self.above: tuple[_Cell, ...] = () if parent is None else (*parent.above, parent)
        self.mean = mean
        self.p90 = p90
        self.square = square
        self.weight = 0.0
        self.told: tuple[int, int | None, LengthForecast] = (-1, None, NO_FORECAST)
        self.opened = 0
        self.open_mean = self.open_p90 = self.open_square = 0.0

    def expect(self, forecast: LengthForecast, count: int) -> None:
        """A request of this forecast began (1) or is over (-1)."""
        for cell in (*self.above[1:], self):
            cell.opened += count
            if cell.opened:
                cell.open_mean += count * forecast.mean_tokens
                cell.open_p90 += count * forecast.p90_tokens
                cell.open_square += count * forecast.square_tokens
            else:  # exact zeros, so that rounding never accumulates
                cell.open_mean = cell.open_p90 = cell.open_square = 0.0

    def learn(self, tokens: float, memory: float) -> None:
        """Take in one length."""
        weight = self.weight + 1.0
        self.weight = weight = weight if weight < memory else memory
        self.mean += (tokens - self.mean) / weight
        self.square += (tokens * tokens - self.square) / weight
        # Robbins-Monro on the logarithm. The optimal gain is 1 / (n * density); at the 90th
        # percentile of a log-normal with the spread of chat traces (about 1) that is 5.7 / n.
        gain = 5.7 / (weight + 5.0)
        self.p90 *= 1.0 + gain * (_QUANTILE if tokens > self.p90 else _QUANTILE - 1.0)

    def estimate(self, strength: float) -> tuple[float, float, float]:
        """Mean, 90th percentile and mean square, shrunk towards the parents.

        What is under way counts as it was forecast.
        """
        top, *lower = (*self.above, self)
        mean, p90, square = top.mean, top.p90, top.square
        for cell in lower:
            weight, opened = cell.weight, cell.opened
            every = weight + opened + strength
            mean += (weight * (cell.mean - mean) + cell.open_mean - opened * mean) / every
            p90 += (weight * (cell.p90 - p90) + cell.open_p90 - opened * p90) / every
            square += (weight * (cell.square - square) + cell.open_square - opened * square) / every
        return mean, max(mean, p90), square


def _key(model: str, tenant: str, prompt_tokens: int, limit: int | None) -> CellKey:
    octave = -1 if limit is None else limit.bit_length()
    return (model, tenant, _half_octave(prompt_tokens), octave)


def _half_octave(tokens: int) -> int:
    """Bucket of a prompt length; bounds at 1, 1.5 and 2 times each power of two."""
    bits = tokens.bit_length()
    return bits * 2 + (tokens >> (bits - 2) & 1) if bits > 1 else bits
