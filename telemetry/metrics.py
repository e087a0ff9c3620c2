"""The gateway's own metrics: plain numbers while it works, Prometheus only when it is asked.

A request costs a dictionary look-up, some additions and three bisections (about 2 us); the
Prometheus families are built when ``/metrics`` is read. Each gateway has its own registry, so
two of them live in one process, and gauges are asked of their owners at that moment: nothing is
kept twice, nothing goes stale.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from router.domain.outcome import Outcome
from telemetry import metric_table as table
from telemetry import metric_text as text
from telemetry.histogram import Histogram
from telemetry.label_cap import OTHER, LabelCap
from telemetry.metric_table import Metric

Sample = tuple[tuple[str, ...], float]
Source = Callable[[], Iterable[Sample]]

MOST_MODELS, MOST_TENANTS, MOST_CLASSES = 200, 1000, 32
FINISH_WORDS = frozenset(
    (
        *("stop", "length", "tool_calls", "function_call", "content_filter", "abort", "error"),
        *("end_turn", "max_tokens", "stop_sequence", "tool_use", "repetition"),
    )
)
"""OpenAI's, Anthropic's and the engines' own; an engine that makes up others gets ``other``."""


class _Pair:
    """Everything counted per model and backend."""

    __slots__ = ("cached", "e2e", "itl", "output", "prompt", "reasons", "status", "tpot", "ttft")

    def __init__(self) -> None:
        self.ttft = Histogram(table.TTFT_BUCKETS)
        self.tpot = Histogram(table.TPOT_BUCKETS)
        self.e2e = Histogram(table.E2E_BUCKETS)
        self.itl = Histogram(table.ITL_BUCKETS)
        self.reasons: dict[str, int] = {}
        self.prompt = self.cached = self.output = 0
        self.status = {"completed": 0, "failed": 0, "cancelled": 0}

    def completed(self, outcome: Outcome) -> None:
        """Take the figures of one answer."""
        self.prompt += outcome.prompt_tokens
        self.cached += outcome.cached_tokens or 0
        self.e2e.add(outcome.finished_s - outcome.arrival_s)
        first_s, tokens = outcome.first_token_s, outcome.output_tokens
        if outcome.shown_first_s is not None:
            first_s, tokens = outcome.shown_first_s, outcome.answer_tokens
        if first_s is not None:
            self.ttft.add(first_s - outcome.arrival_s)
            if tokens > 1:
                self.tpot.add((outcome.finished_s - first_s) / (tokens - 1))


class GatewayMetrics:
    """Counts what happens; an ``Observer``.

    Args:
        policy: name of the policy, for the labels.
        version: of this software.
        models: names that are let through uncapped.
        slo_classes: likewise.
    """

    def __init__(
        self,
        *,
        policy: str,
        version: str,
        models: Iterable[str] = (),
        slo_classes: Iterable[str] = (),
    ) -> None:
        self.policy, self._version = policy, version
        self._caps = {
            "model": LabelCap(MOST_MODELS),
            "tenant": LabelCap(MOST_TENANTS),
            "slo_class": LabelCap(MOST_CLASSES),
        }
        for name in models:
            self._caps["model"].admit(name)
        for name in slo_classes:
            self._caps["slo_class"].admit(name)
        self._pairs: dict[tuple[str, str], _Pair] = {}
        self._waits: dict[str, Histogram] = {}
        self._overheads: dict[str, Histogram] = {}
        self._counts: dict[str, dict[tuple[str, ...], float]] = {}
        self._answers: dict[tuple[str, str, int], int] = {}
        self._sources: dict[str, list[Source]] = {}

    # -- while it works ----------------------------------------------------------------------

    def observe(self, outcome: Outcome) -> None:
        """Take note of one finished attempt."""
        key = (outcome.model, outcome.backend)
        pair = self._pairs.get(key)
        if pair is None:
            pair = self._pair(key)
        pair.status[outcome.status] += 1
        pair.output += outcome.output_tokens
        if outcome.status == "completed":
            pair.completed(outcome)
            if outcome.tenant:
                self._count_tenant(outcome)

    def answered(self, model: str, slo_class: str, code: int) -> None:
        """A client got its answer, with this HTTP status."""
        key = (model, slo_class, code)
        self._answers[key] = self._answers.get(key, 0) + 1

    def _count_answers(self) -> None:
        """Bring what was answered since the last look to its labels."""
        answers, self._answers = self._answers, {}
        for (model, slo_class, code), answered in answers.items():
            labels = (self._caps["model"](model), self._caps["slo_class"](slo_class), str(code))
            self.count(table.REQUESTS, labels, answered)

    def rejected(self, model: str, reason: str) -> None:
        """A request was turned away."""
        self.count(table.REJECTED, (self._caps["model"](model), reason))

    def retried(self, backend: str, reason: str) -> None:
        """An attempt failed before its first byte and goes elsewhere."""
        self.count(table.RETRIES, (backend, reason))

    def continued(self, outcome: str) -> None:
        """A stream that broke in mid-answer, and what became of it; one of a few words."""
        self.count(table.CONTINUATIONS, (outcome,))

    def ended(self, model: str, backend: str, gaps: Sequence[float], finish_reason: str) -> None:
        """An answer is complete: the gaps between its reads, and why the engine stopped."""
        key = (model, backend)
        pair = self._pairs.get(key)
        if pair is None:
            pair = self._pair(key)
        pair.itl.add_all(gaps)
        if finish_reason:
            reason = finish_reason if finish_reason in FINISH_WORDS else OTHER
            pair.reasons[reason] = pair.reasons.get(reason, 0) + 1

    def gapped(self, model: str, backend: str, gaps: Sequence[float]) -> None:
        """The gaps so far of an answer that is a long one."""
        self._pair((model, backend)).itl.add_all(gaps)

    def waited(self, model: str, seconds: float) -> None:
        """A request left the router's queue, or never had to enter it (0 s)."""
        label = self._caps["model"](model)
        if label not in self._waits:
            self._waits[label] = Histogram(table.WAIT_BUCKETS)
        self._waits[label].add(seconds)

    def worked(self, stage: str, seconds: float) -> None:
        """The gateway itself spent this long on a request; ``stage`` is one of a few words."""
        if stage not in self._overheads:
            self._overheads[stage] = Histogram(table.OVERHEAD_BUCKETS)
        self._overheads[stage].add(seconds)

    def count(self, metric: Metric, labels: tuple[str, ...] = (), by: float = 1.0) -> None:
        """Add to a counter of the table; the caller answers for the number of label values."""
        counts = self._counts.setdefault(metric.name, {})
        counts[labels] = counts.get(labels, 0.0) + by

    def ask(self, metric: Metric, source: Source) -> None:
        """Ask ``source`` for the (labels, value) of a counter or gauge at each scrape."""
        self._sources.setdefault(metric.name, []).append(source)

    def forget(self, backend: str) -> None:
        """Drop the series of a backend that left."""
        for key in [key for key in self._pairs if key[1] == backend]:
            del self._pairs[key]

    # -- when it is asked --------------------------------------------------------------------

    def pieces(self) -> Iterator[str]:
        """The text of ``/metrics`` piece by piece, each a millisecond or so of work.

        What a piece tells is read when it is made, whatever happens between two of them.
        """
        self._count_answers()
        for metric in table.TABLE:
            if metric.kind == "histogram":
                yield text.head(metric)
                yield from text.histogram_pieces(metric, list(self._histograms(metric)))
            else:
                yield text.head(metric) + text.sample_lines(metric, list(self._samples(metric)))

    def exposition(self) -> tuple[bytes, str]:
        """Body and content type of ``/metrics``, in one go."""
        return "".join(self.pieces()).encode(), text.CONTENT_TYPE

    def _pair(self, key: tuple[str, str]) -> _Pair:
        """The counts of this pair; a model over the cap shares those of ``other``."""
        capped = (self._caps["model"](key[0]), key[1])
        pair = self._pairs.get(capped)
        if pair is None:
            pair = self._pairs[capped] = _Pair()
        return pair

    def _count_tenant(self, outcome: Outcome) -> None:
        tenant = self._caps["tenant"](outcome.tenant)
        self.count(table.TENANT_TOKENS, (tenant, "prompt"), outcome.question_tokens)
        self.count(table.TENANT_TOKENS, (tenant, "output"), outcome.answer_tokens)

    def _histograms(self, metric: Metric) -> Iterator[tuple[tuple[str, ...], Histogram]]:
        if metric is table.WAIT:
            yield from (((label,), kept) for label, kept in self._waits.items())
        elif metric is table.OVERHEAD:
            yield from (((label,), kept) for label, kept in self._overheads.items())
        else:
            name = _HISTOGRAMS[metric.name]
            yield from ((key, getattr(pair, name)) for key, pair in self._pairs.items())

    def _samples(self, metric: Metric) -> Iterator[Sample]:
        yield from self._counts.get(metric.name, {}).items()
        for source in self._sources.get(metric.name, ()):
            yield from source()
        yield from self._own(metric)

    def _own(self, metric: Metric) -> Iterator[Sample]:
        """What is kept per pair or known here."""
        if metric is table.ATTEMPTS:
            for (model, backend), pair in self._pairs.items():
                for status, count in pair.status.items():
                    yield (model, backend, self.policy, status), float(count)
        elif metric is table.FINISH_REASONS:
            for (model, backend), pair in self._pairs.items():
                yield from (((model, backend, r), float(n)) for r, n in pair.reasons.items())
        elif metric is table.BUILD_INFO:
            yield (self._version, self.policy), 1.0
        elif metric is table.LABELS_CAPPED:
            yield from (((name,), float(cap.refused)) for name, cap in self._caps.items())
        elif metric.name in _TOKENS:
            name = _TOKENS[metric.name]
            yield from ((key, float(getattr(pair, name))) for key, pair in self._pairs.items())


_HISTOGRAMS = {
    table.TTFT.name: "ttft",
    table.TPOT.name: "tpot",
    table.ITL.name: "itl",
    table.E2E.name: "e2e",
}
_TOKENS = {
    table.PROMPT_TOKENS.name: "prompt",
    table.CACHED_TOKENS.name: "cached",
    table.OUTPUT_TOKENS.name: "output",
}
