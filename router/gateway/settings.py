"""What the relay engine may be told, whoever read it from where."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from router.domain.slo import DEFAULT_SLOS, Slo
from router.gateway.continuation.rules import ContinuationRules
from router.gateway.identity import Identity
from router.gateway.limits import Limits
from router.gateway.wire import NO_LIMIT


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """What the engine needs of the configuration.

    Attributes:
        limits: timeouts and retries.
        policy_name: told in ``x-motley-policy``.
        aliases: other names of models.
        adapters: LoRA adapters, and the model whose engines have them loaded.
        slos: targets by class: the classes a request may ask for.
        fallbacks: models that may answer in place of one, for requests that allow it.
        explain_every_s: how often a decision is explained that nobody asked about; ``None``:
            never.
        asks_load: whether vLLM is asked to send its load along with each answer (ORCA).
        identity: keys and certificates for the engines, if there are any.
        continuation: which streams are gone on with where a backend breaks off; ``None``: none.
        max_json_depth: how deep bodies may be nested.
    """

    limits: Limits
    policy_name: str
    aliases: Mapping[str, str] = field(default_factory=dict)
    adapters: Mapping[str, str] = field(default_factory=dict)
    slos: Mapping[str, Slo] = field(default_factory=lambda: DEFAULT_SLOS)
    fallbacks: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    explain_every_s: float | None = None
    asks_load: bool = False
    identity: Identity | None = None
    continuation: ContinuationRules | None = None
    max_json_depth: int = NO_LIMIT
