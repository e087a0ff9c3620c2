"""vLLM engines that take turns on the same cards: sleep, wake up, and LoRA adapters.

Backends with the same label ``slot`` share their cards, and one of them is awake at a time. Start
vLLM with ``--enable-sleep-mode`` and ``VLLM_SERVER_DEV_MODE=1``. A backend with a label ``lora``
(the adapter's path) is an adapter on the engine at its URL, served under the backend's model name
(``--enable-lora``, ``VLLM_ALLOW_RUNTIME_LORA_UPDATING=1``). A backend without a slot has its cards
for itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import httpx

from router.domain.errors import ConfigError
from router.domain.fleet import BackendSpec, Fleet
from router.gateway.placement.adapter import PlacementError, Survey
from solver.stock import pools_of

SLOT, LORA = "slot", "lora"
CALL_TIMEOUT_S = 300.0
"""For one call: waking a large model copies its weights from main memory."""


class VllmAdapter:
    """Sleeps and wakes engines, loads and unloads adapters.

    Args:
        specs: every engine and adapter, awake or not.
        ready_timeout_s: for an engine to answer after it was woken.
        look_s: between looks.

    Raises:
        ConfigError: a slot whose backends differ in cards, or an engine that is not vLLM.
    """

    name = "vllm"
    dry = False
    joins = True

    def __init__(
        self, specs: Sequence[BackendSpec], *, ready_timeout_s: float, look_s: float = 0.2
    ) -> None:
        self._specs = tuple(specs)
        self._ready_timeout_s, self._look_s = ready_timeout_s, look_s
        self._http = httpx.AsyncClient(timeout=CALL_TIMEOUT_S)
        check_slots(self._specs)

    async def survey(self, running: Sequence[BackendSpec]) -> Survey:
        """Cards by slot; everything that does not run could be woken or loaded."""
        names = {spec.name for spec in running}
        one_a_slot = {slot_of(spec): spec for spec in reversed(self._specs)}
        startable = tuple(spec for spec in self._specs if spec.name not in names)
        return Survey(pools_of(Fleet(tuple(one_a_slot.values()))), startable)

    async def asleep(self) -> list[BackendSpec]:
        """Backends that cannot serve as they are: engines asleep, adapters not loaded.

        Raises:
            PlacementError: an engine that does not answer.
        """
        return [spec for spec in self._specs if _takes_turns(spec) and not await self._awake(spec)]

    def preview(self, wanted: Mapping[str, int]) -> tuple[str, ...]:  # noqa: ARG002
        """The steps say it all."""
        return ()

    async def begin(self) -> None:
        """Nothing to note."""

    async def finish(self) -> None:
        """Nothing to note."""

    def can_start(self, group: str, running: Sequence[BackendSpec]) -> bool:
        """Whether a slot is free that holds such an engine."""
        return self._choice(group, running) is not None

    async def start(self, group: str, running: Sequence[BackendSpec]) -> BackendSpec | None:
        """Wake an engine in a free slot, and load its adapter if it is one.

        Raises:
            PlacementError: no slot is free, or the engine does not wake up.
        """
        spec = self._choice(group, running)
        if spec is None:
            raise PlacementError(f"no free slot holds an engine of {group}")
        for mate in self._mates(spec):
            if mate.url != spec.url:
                await self._sleep(mate)
        await self._wake(spec)
        if LORA in spec.labels and not await self._loaded(spec):
            body = {"lora_name": spec.model, "lora_path": spec.labels[LORA]}
            await self._call(spec, "POST", "/v1/load_lora_adapter", body)
        return spec

    async def stop(self, spec: BackendSpec) -> None:
        """Unload an adapter; put an engine to sleep unless others are served from its URL."""
        if LORA in spec.labels:
            if await self._loaded(spec):
                await self._call(spec, "POST", "/v1/unload_lora_adapter", {"lora_name": spec.model})
        elif all(mate.url != spec.url for mate in self._mates(spec)):
            await self._sleep(spec)

    async def close(self) -> None:
        """Drop idle connections."""
        await self._http.aclose()

    def _choice(self, group: str, running: Iterable[BackendSpec]) -> BackendSpec | None:
        taken = {slot_of(spec) for spec in running}
        free = (s for s in self._specs if s.group == group and slot_of(s) not in taken)
        return next(free, None)

    def _mates(self, spec: BackendSpec) -> list[BackendSpec]:
        return [
            one for one in self._specs if slot_of(one) == slot_of(spec) and one.name != spec.name
        ]

    async def _awake(self, spec: BackendSpec) -> bool:
        asleep = (await self._call(spec, "GET", "/is_sleeping")).get("is_sleeping", False)
        return not asleep and (LORA not in spec.labels or await self._loaded(spec))

    async def _loaded(self, spec: BackendSpec) -> bool:
        listed = await self._call(spec, "GET", "/v1/models")
        return any(model.get("id") == spec.model for model in listed.get("data", []))

    async def _sleep(self, spec: BackendSpec) -> None:
        if not (await self._call(spec, "GET", "/is_sleeping")).get("is_sleeping", False):
            await self._call(spec, "POST", "/sleep?level=1")

    async def _wake(self, spec: BackendSpec) -> None:
        if (await self._call(spec, "GET", "/is_sleeping")).get("is_sleeping", False):
            await self._call(spec, "POST", "/wake_up")
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._ready_timeout_s
        while (await self._call(spec, "GET", "/is_sleeping")).get("is_sleeping", False):
            if loop.time() > deadline:
                raise PlacementError(
                    f"{spec.name} is still asleep after {self._ready_timeout_s:g} s"
                )
            await asyncio.sleep(self._look_s)
        await self._call(spec, "GET", "/health")

    async def _call(
        self, spec: BackendSpec, method: str, path: str, body: dict[str, str] | None = None
    ) -> dict[str, Any]:
        try:
            answer = await self._http.request(method, f"{spec.url}{path}", json=body)
        except httpx.HTTPError as error:
            raise PlacementError(f"{spec.name}: {method} {path}: {error!r}") from error
        if answer.status_code == 404 and path.startswith(("/is_sleeping", "/sleep", "/wake_up")):
            raise PlacementError(
                f"{spec.name} has no {path}: start vLLM with --enable-sleep-mode and "
                "VLLM_SERVER_DEV_MODE=1"
            )
        if not answer.is_success:
            raise PlacementError(
                f"{spec.name}: {method} {path} answered {answer.status_code}: {answer.text[:200]}"
            )
        if not answer.headers.get("content-type", "").startswith("application/json"):
            return {}
        found = answer.json() if answer.content else {}
        return found if isinstance(found, dict) else {}


def slot_of(spec: BackendSpec) -> str:
    """The cards that a backend runs on: shared where the label says so."""
    return spec.labels.get(SLOT, f"={spec.name}")


def _takes_turns(spec: BackendSpec) -> bool:
    return SLOT in spec.labels or LORA in spec.labels


def check_slots(specs: Sequence[BackendSpec]) -> None:
    """Raise ``ConfigError`` for slots that make no sense."""
    cards: dict[str, tuple[str, str, int]] = {}
    for spec in specs:
        if _takes_turns(spec) and spec.engine != "vllm":
            raise ConfigError(
                f"backend {spec.name}: only vLLM can sleep or load adapters, not {spec.engine}; "
                f"drop its label {SLOT!r}"
            )
        mine = (spec.gpu, spec.zone, spec.tensor_parallel)
        if cards.setdefault(slot_of(spec), mine) != mine:
            raise ConfigError(
                f"backend {spec.name}: all backends of slot {slot_of(spec)!r} must run on the "
                "same gpu, zone and tensor_parallel"
            )
