"""One attempt on two backends: the prompt on the first, the answer from the second.

The second half is an ordinary attempt of its exchange: its bytes go to the client, its failure is
retried. The first half is kept here: nothing of it reaches the client, and the books of both are
one entry in the dispatcher, closed by the second's ticket. If either fails before the client saw a
byte, both end and the request goes elsewhere.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from router.domain.fleet import BackendSpec
from router.gateway.attempt import Attempt
from router.gateway.kv_transfer import kept, meeting, prompt_only, with_fields
from router.gateway.limits import Stage
from router.gateway.problems import Problem
from router.gateway.seams import Setback
from router.gateway.tally import Usage
from router.gateway.ticket import Ticket
from router.gateway.wire import Headers

if TYPE_CHECKING:
    from router.gateway.trying import Trying

_MOST_BYTES = 16 * 1024 * 1024
"""Of a prefill side's answer: block ids of the longest prompts take a hundredth of it."""


class _NoTicket(Ticket):
    """The first half has no entry of its own in the books."""

    __slots__ = ()

    def __init__(self) -> None:
        pass

    @property
    def open(self) -> bool:
        return False

    def first_token(self, now: float) -> None:
        pass

    def committed(self, now: float) -> None:
        pass

    def completed(self, now: float, *, output_tokens: int, usage: Usage | None) -> None:
        pass

    def failed(self, now: float, **_: object) -> None:
        pass


class Halves:
    """Implements ``seams.Owner`` for the first half, and begins the second when it is time.

    Args:
        exchange: hears what comes of it.
        prefill: where the prompt is computed.
        decode: where the answer is.
    """

    __slots__ = ("_answer", "_exchange", "_first", "decode", "prefill")

    def __init__(self, exchange: Trying, prefill: BackendSpec, decode: BackendSpec) -> None:
        self._exchange = exchange
        self.prefill, self.decode = prefill, decode
        self._first: Attempt | None = None
        self._answer: list[bytes] = []

    def begin(self, now: float) -> None:
        """Send the prompt; to SGLang's decode side as well."""
        exchange = self._exchange
        pool = exchange.engine.pool(self.prefill)
        body = exchange.body
        fields = None
        if self.prefill.engine == "vllm":
            body = prompt_only(body)
        else:
            fields = meeting(pool.address, self.prefill.bootstrap_port)
            body = with_fields(body, fields)
        first = self._first = exchange.attempt_at(
            self.prefill, self, _NoTicket(), now, remembered=False
        )
        exchange.send(first, self.prefill, body)
        if fields is not None:
            exchange.begin_answer(self.decode, with_fields(exchange.body, fields), now)

    def look(self, now: float) -> None:
        """See whether the prefill side is late."""
        if self._first is not None:
            self._first.look(now)

    def end(self) -> None:
        """The attempt is over: the prefill side need not go on."""
        first, self._first = self._first, None
        if first is not None:
            first.give_up()

    # What the first half reports (``seams.Owner``); nothing of it is for the client.

    def answer_begins(self, status: int, headers: Headers) -> None:
        """It computes, or has computed."""

    def answer_data(self, data: bytes) -> None:
        """Where vLLM keeps the KV; SGLang's first token comes from the decode side as well."""
        if self.prefill.engine == "vllm" and sum(map(len, self._answer)) < _MOST_BYTES:
            self._answer.append(data)

    def raw_sink(self) -> None:
        """Nothing of it is for the client."""

    def answer_ends(self, usage: Usage | None) -> None:  # noqa: ARG002
        """The prompt is computed."""
        self._first = None
        exchange = self._exchange
        now = exchange.engine.now()
        if self.prefill.engine != "vllm":
            exchange.prompt_computed(now)
            return
        fields = kept(b"".join(self._answer))
        if fields is None:
            message = (
                f"Backend {self.prefill.name} computed the prompt and kept no KV for another: "
                "start it with --kv-transfer-config, or take its role away."
            )
            problem = Problem(502, message, code="backend_no_kv")
            exchange.prompt_failed(Setback(problem, backpressure=True, reason="no_kv"))
            return
        exchange.prompt_computed(now)
        body = with_fields(exchange.body, {"kv_transfer_params": fields})
        exchange.begin_answer(self.decode, body, now)

    def answer_breaks(self, problem: Problem, *, at_boundary: bool, output_tokens: int) -> None:  # noqa: ARG002
        """It broke after it began, and nobody saw a byte of it."""
        self._fail(Setback(problem, reason="broken"))

    def attempt_failed(self, setback: Setback) -> None:
        """There is no prompt computed."""
        self._fail(setback)

    def _fail(self, setback: Setback) -> None:
        self._first = None
        attempt = self._exchange.attempt
        if attempt is None or attempt.stage is not Stage.RELAYING:  # else the KV had moved
            self._exchange.prompt_failed(setback)
