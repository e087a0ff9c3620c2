"""What a process of engines is told to run: one line of JSON on its standard input."""

from __future__ import annotations

import msgspec

from router.domain.fleet import BackendSpec
from simulator.engine_server.tokens import LengthRule


class EnginePlan(msgspec.Struct, frozen=True):
    """One engine: what it is, and the inherited descriptor of its listening socket."""

    spec: BackendSpec
    fd: int


class LoadPlan(msgspec.Struct, frozen=True):
    """A light open-loop load against one OpenAI endpoint.

    Attributes:
        url: base URL of the gateway.
        model: what to ask for.
        rate_per_s: arrivals; of the profile's calm, where it has bursts.
        profile: see ``simulator.engine_server.profiles``.
        seed: of arrivals and prompts.
    """

    url: str
    model: str
    rate_per_s: float
    seed: int = 0
    profile: str = "steady"


class HostPlan(msgspec.Struct, frozen=True):
    """Everything one process runs.

    Attributes:
        engines: the engines.
        speed: emulated seconds per real second.
        seed: of answer lengths and response ids.
        load: a load to put on the gateway, if any.
        lengths: how long answers get; the usual rule, if not given.
    """

    engines: list[EnginePlan]
    speed: float = 1.0
    seed: int = 0
    load: LoadPlan | None = None
    lengths: LengthRule | None = None
