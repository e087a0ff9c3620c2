"""What a policy is built from: its own randomness and its parameters."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass, field

from router.domain.errors import ConfigError
from router.domain.slo import DEFAULT_SLOS, Slo


@dataclass(slots=True)
class PolicyContext:
    """Handed to every policy factory.

    Attributes:
        rng: the policy's own randomness, seeded by the caller (I5).
        slos: latency targets by class.
        params: the ``policy.params`` of the configuration.
        asked: names of the parameters that the policy asked for.
    """

    rng: random.Random
    params: Mapping[str, float] = field(default_factory=dict)
    slos: Mapping[str, Slo] = field(default_factory=lambda: DEFAULT_SLOS)
    asked: set[str] = field(default_factory=set)

    def param(self, name: str, default: float) -> float:
        """One numeric parameter, or its default.

        Raises:
            ConfigError: not a finite number of at least 0.
        """
        self.asked.add(name)
        value = self.params.get(name, default)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ConfigError(f"policy parameter {name!r} must be a number, not {value!r}")
        if not 0.0 <= value < math.inf:
            raise ConfigError(
                f"policy parameter {name!r} must be a finite number of at least 0, not {value!r}"
            )
        return float(value)

    def unused(self) -> set[str]:
        """Parameters that were given and not asked for."""
        return set(self.params) - self.asked
