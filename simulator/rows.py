"""A row of the trace as each side may see it: the router a ``Request``, the engine a ``Job``."""

from __future__ import annotations

from array import array
from collections.abc import Mapping

from router.domain.request import Request
from router.domain.slo import DEFAULT_CLASS
from simulator.replica.job import Job
from simulator.traces.columns import Trace


class Rows:
    """Makes requests and jobs from the columns of a trace.

    Args:
        trace: the columns.
        default_model: for requests that name none.
        aliases: other names of models.
        fallbacks: models that requests allow in place of theirs.
    """

    def __init__(
        self,
        trace: Trace,
        default_model: str,
        aliases: Mapping[str, str] | None = None,
        fallbacks: Mapping[str, tuple[str, ...]] | None = None,
    ) -> None:
        self._trace = trace
        known = aliases or {}
        self._models = [known.get(name, name) or default_model for name in trace.model.names]
        self._classes = [name or DEFAULT_CLASS for name in trace.slo_class.names]
        self._shares = trace.has_prefixes
        self._inputs, self._outputs = trace.input_tokens, trace.output_tokens
        self._limits, self._blocks = trace.max_tokens, trace.prefix_block_tokens
        self._model_codes, self._class_codes = trace.model.codes, trace.slo_class.codes
        self._fallbacks = fallbacks
        self._next_turn = next_turns(trace) if self._shares else array("i")

    def request(self, i: int, now: float) -> Request:
        """Request ``i`` without its output length (I6)."""
        tenant, session = self._trace.tenant, self._trace.session
        model = self._models[self._model_codes[i]]
        request = Request(
            str(i),
            model,
            now,
            self._inputs[i],
            self._limits[i] or None,
            self._classes[self._class_codes[i]],
            tenant.names[tenant.codes[i]],
            session.names[session.codes[i]],
            self._trace.prefix_hashes(i) if self._shares else (),
            self._blocks[i],
        )
        if self._fallbacks:
            request.fallbacks = self._fallbacks.get(model, ())
        return request

    def prefill(self, i: int) -> Job:
        """The prompt of request ``i`` alone: an answer of one token, which nobody reads."""
        if not self._shares:
            return Job(str(i), self._inputs[i], 1, 1)
        hashes = self._trace.prefix_hashes(i)
        return Job(str(i), self._inputs[i], 1, 1, hashes, self._blocks[i])

    def job(self, i: int, longest_tokens: int) -> Job:
        """Request ``i`` with the truth in it; the answer stops at the engine's limit."""
        prompt, output = self._inputs[i], self._outputs[i]
        if prompt + output > longest_tokens:
            output = max(1, longest_tokens - prompt)
        if not self._shares:
            return Job(str(i), prompt, output, self._limits[i])
        return Job(
            str(i),
            prompt,
            output,
            self._limits[i],
            self._trace.prefix_hashes(i),
            self._blocks[i],
            self._answer_hashes(i, prompt + output),
        )

    def _answer_hashes(self, i: int, total_tokens: int) -> tuple[int, ...]:
        """Blocks the answer completes, as far as the next turn of the conversation tells."""
        later = self._next_turn[i]
        if later < 0:
            return ()
        mine, theirs = self._trace.prefix_hashes(i), self._trace.prefix_hashes(later)
        if not mine or theirs[: len(mine)] != mine:
            return ()
        return theirs[len(mine) : total_tokens // self._trace.prefix_block_tokens[i]]


def next_turns(trace: Trace) -> array[int]:
    """Index of the next request of the same session, or -1."""
    following = array("i", [-1]) * len(trace)
    latest: dict[int, int] = {}
    for i, code in enumerate(trace.session.codes):
        if trace.session.names[code]:
            if code in latest:
                following[latest[code]] = i
            latest[code] = i
    return following
