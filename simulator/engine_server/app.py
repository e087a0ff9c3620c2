"""The ASGI application of one emulated engine: which path does what."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from msgspec import json

from simulator.engine_server.asgi import Page, Receive, Scope, Send, header, read_body, send_page
from simulator.engine_server.asks import AskKind, DetokenizeBody, decode, read_tokenize
from simulator.engine_server.completions import Completions
from simulator.engine_server.dialect import Dialect, Limits
from simulator.engine_server.driver import Driver
from simulator.engine_server.exposition import EngineFacts, MetricsPage, render
from simulator.engine_server.faults import Faults, read_faults
from simulator.engine_server.kv_publisher import KvPublisher
from simulator.engine_server.refusal import InvalidBody, Refusal
from simulator.engine_server.tokens import from_token_ids, token_ids

Handler = Callable[[bytes], Awaitable[Page]]
Kill = Callable[[float | None], None]
NOT_EMULATED = (
    "There is no {path} on this emulated engine: it answers /v1/chat/completions and "
    "/v1/completions, one choice a request. A real engine may have it."
)
COMPLETIONS: dict[str, AskKind] = {
    "/v1/chat/completions": "chat",
    "/v1/completions": "completion",
}


class EngineApp:
    """One emulated engine behind ASGI.

    Args:
        driver: the replica in real time.
        dialect, metrics: how this engine talks.
        completions: answers the OpenAI endpoints.
        facts, limits: what it serves.

    ``routes`` may be added to; ``on_kill`` is called by the kill fault, with the real seconds
    after which the engine shall be back (``None``: never), once the replica has lost its work.
    """

    def __init__(
        self,
        driver: Driver,
        dialect: Dialect,
        metrics: MetricsPage,
        completions: Completions,
        *,
        facts: EngineFacts,
        limits: Limits,
    ) -> None:
        self.driver, self.dialect, self.facts, self.limits = driver, dialect, facts, limits
        self.on_kill: Kill | None = None
        self.publisher: KvPublisher | None = None
        self._metrics, self.completions = metrics, completions
        handover = completions.handover
        self._below = {} if handover is None else handover.pages()
        self.routes: dict[str, dict[str, Handler]] = {
            "/metrics": {"GET": self._metrics_page},
            "/v1/models": {"GET": self._models},
            "/tokenize": {"POST": self._tokenize},
            "/detokenize": {"POST": self._detokenize},
            "/fault": {"GET": self._show_faults, "POST": self._set_faults},
            "/ping": {"GET": _empty, "POST": _empty},
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one HTTP request."""
        if scope["type"] != "http":
            return
        body = await read_body(receive)
        if body is None:
            return
        try:
            kind = COMPLETIONS.get(scope["path"])
            if kind is not None and scope["method"] == "POST":
                self._check_content_type(scope)
                request_id = header(scope, b"x-request-id")
                await self.completions.answer(kind, body, request_id, receive, send)
            else:
                await send_page(send, await self._page(scope, body))
        except InvalidBody as problem:
            await self._refuse(send, self.dialect.invalid(problem))
        except Refusal as refusal:
            await self._refuse(send, refusal)

    async def _page(self, scope: Scope, body: bytes) -> Page:
        path, method = scope["path"], scope["method"]
        for prefix, page in self._below.items():
            if path.startswith(prefix):
                return await page(path.removeprefix(prefix))
        methods = self.routes.get(path, {})
        if method in methods:
            return await methods[method](body)
        if methods or path in COMPLETIONS:
            allow = ", ".join(methods or ["POST"]).encode()
            return Page(b'{"detail":"Method Not Allowed"}', 405, allow=allow)
        return Page(json.encode({"detail": NOT_EMULATED.format(path=path)}), 404)

    async def _refuse(self, send: Send, refusal: Refusal) -> None:
        await send_page(send, Page(self.dialect.envelope(refusal), refusal.status))

    @staticmethod
    def _check_content_type(scope: Scope) -> None:
        if not header(scope, b"content-type").startswith("application/json"):
            only = "Unsupported Media Type: Only 'application/json' is allowed"
            raise InvalidBody(only, None)

    async def _metrics_page(self, _: bytes) -> Page:
        families = self._metrics.families(self.facts, self.driver.stats, self.driver.signals())
        return Page(render(families), content_type=self._metrics.content_type)

    async def _models(self, _: bytes) -> Page:
        return Page(self.dialect.models(self.limits, int(self.facts.started_unix_s)))

    async def _tokenize(self, body: bytes) -> Page:
        return Page(self.dialect.tokenized(token_ids(read_tokenize(body)), self.limits))

    async def _detokenize(self, body: bytes) -> Page:
        return Page(self.dialect.detokenized(from_token_ids(decode(body, DetokenizeBody).tokens)))

    async def _show_faults(self, _: bytes) -> Page:
        return Page(json.encode(self.completions.faults))

    async def _set_faults(self, body: bytes) -> Page:
        faults = read_faults(body)
        self.set_faults(faults)
        return Page(json.encode(faults))

    def set_faults(self, faults: Faults) -> None:
        """Make these the engine's faults, instead of what it had."""
        if faults.kill:
            self.driver.die()
            if self.on_kill is not None:
                self.on_kill(faults.restart_after_s)
            return
        self.completions.faults = faults
        self.driver.slow_down(faults.slow_factor)
        if faults.hang:
            self.driver.hang()
        else:
            self.driver.resume()


async def _empty(_: bytes) -> Page:
    return Page()
