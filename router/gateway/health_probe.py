"""Active health checks: a cheap GET to every backend, now and then.

They find the backend that nobody sends to any more; the breaker in ``router.health`` finds the
one that fails. Health is no proof of service (a draining vLLM answers 200 here and 500 to every
request), so both are needed.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter

from router.config.schema import ReliabilitySection
from router.domain.fleet import BackendSpec
from router.fleet_state.backend import BackendState
from router.gateway.engine import Engine
from router.gateway.engine_fetch import Fetchers
from router.gateway.lull import PATIENCE_S
from router.gateway.upstream import parse_address
from telemetry.http_get import FetchError, HttpGetter

log = logging.getLogger("motley.health")

HEALTH_PATHS = {"vllm": "/health", "sglang": "/v1/models", "llamacpp": "/health"}
"""SGLang's ``/health`` runs a generation and takes a second each time; its model list is free."""
PATH_LABEL = "health_path"
"""Label of a backend that overrides the path."""
MAX_ANSWER_BYTES = 1 << 20


class HealthProbe:
    """Tells the dispatcher which backends answer.

    Args:
        engine: its dispatcher is told; its queue is woken when a backend comes back.
        settings: interval, timeout, and the failures in a row that make a backend ill.
    """

    def __init__(self, engine: Engine, settings: ReliabilitySection) -> None:
        self._engine = engine
        self._settings = settings
        self._fetchers = Fetchers(engine)
        self._failures: Counter[int] = Counter()  # by index: a name may pass on to another
        self._asked: set[int] = set()

    async def run(self) -> None:
        """Probe for ever, one after the other; a fleet is presumed well until it has been tried.

        All at once would hold requests up: 64 probes and their answers take 6 ms. Each has its
        time: were they to wait for each other's answers, a large fleet would be seen more seldom.
        """
        loop, interval_s = asyncio.get_running_loop(), self._settings.health_interval_s
        due_s = loop.time()
        async with asyncio.TaskGroup() as probes:
            while True:
                self._fetchers.tidy()
                backends = list(self._engine.dispatcher.state.backends)
                step_s = interval_s / max(1, len(backends))
                for backend in backends:
                    due_s = max(due_s + step_s, loop.time() - interval_s)
                    await self._wait_until(due_s, step_s)
                    if self._is_here(backend) and backend.index not in self._asked:  # that hangs
                        probes.create_task(self.probe(backend))
                if not backends:
                    await self._engine.lull.rest(interval_s)

    async def _wait_until(self, due_s: float, step_s: float) -> None:
        """Until an answer ends shortly before, or until then: what is late adds up otherwise."""
        patience_s = min(PATIENCE_S, step_s / 4.0)
        left_s = due_s - asyncio.get_running_loop().time()
        await self._engine.lull.rest(max(left_s - patience_s, 0.0), patience_s)

    async def probe_all(self) -> None:
        """Probe every backend once, now."""
        self._fetchers.tidy()
        backends = list(self._engine.dispatcher.state.backends)
        await asyncio.gather(*(self.probe(backend) for backend in backends))

    async def probe(self, backend: BackendState) -> None:
        """Probe one backend, and tell if it is well no more, or well again."""
        index = backend.index
        fetcher = self._fetchers.of(backend.spec.name)
        self._asked.add(index)
        try:
            alive = await self._answers(backend.spec, fetcher)
        finally:
            self._asked.discard(index)
        if not self._is_here(backend):
            fetcher.close()  # what was under way is kept only now
            self._failures.pop(index, None)
            return
        ill = self._count(index, alive=alive) >= self._settings.health_failures
        if backend.healthy is ill:
            self._tell(backend.spec.name, healthy=not ill)

    def _is_here(self, backend: BackendState) -> bool:
        """Whether the fleet has it still; another may have its name."""
        state, name = self._engine.dispatcher.state, backend.spec.name
        return name in state and state.get(name) is backend

    async def _answers(self, spec: BackendSpec, fetcher: HttpGetter) -> bool:
        path = spec.labels.get(PATH_LABEL, HEALTH_PATHS[spec.engine])
        url = parse_address(spec.name, spec.url).url(path)
        timeout_s = self._settings.health_timeout_s
        try:
            await fetcher.get(url, timeout_s=timeout_s, max_bytes=MAX_ANSWER_BYTES)
        except FetchError as error:
            # A 404 or 401 is an engine that lives and has no such page.
            return error.status is not None and error.status < 500
        return True

    def _count(self, index: int, *, alive: bool) -> int:
        """Failures in a row; one success forgets them all."""
        self._failures[index] = 0 if alive else self._failures[index] + 1
        return self._failures[index]

    def _tell(self, name: str, *, healthy: bool) -> None:
        log.warning("backend %s %s", name, "answers again" if healthy else "does not answer")
        self._engine.dispatcher.set_health(name, healthy=healthy, now=self._engine.now())
        self._engine.poke()
