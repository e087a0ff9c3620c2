"""The catalogue and the user's own models and measurements, as one object to ask."""

from __future__ import annotations

from dataclasses import dataclass, field

from router.domain.fleet import BackendSpec
from router.perf import build
from router.perf.catalog import Catalog, default_catalog
from router.perf.engines import EngineDefaults
from router.perf.priors import Override
from router.perf.roofline import IterationModel


@dataclass(frozen=True, slots=True)
class Hardware:
    """What is known of the hardware before any traffic.

    Attributes:
        catalog: GPUs, models and weight formats, the user's own added.
        overrides: the user's own measurements; they beat the catalogue's priors.
    """

    catalog: Catalog = field(default_factory=default_catalog)
    overrides: tuple[Override, ...] = ()

    def iteration_model(self, spec: BackendSpec) -> IterationModel:
        """See ``router.perf.build.iteration_model``."""
        return build.iteration_model(spec, overrides=self.overrides, catalog=self.catalog)

    def kv_capacity_tokens(self, spec: BackendSpec) -> int:
        """See ``router.perf.build.kv_capacity_tokens``."""
        return build.kv_capacity_tokens(spec, catalog=self.catalog)

    def kv_bytes_per_token(self, spec: BackendSpec) -> float:
        """Keys and values of one token, on all cards of a backend together."""
        return self.catalog.model(spec.model).kv_bytes_per_token()

    def context_limit_tokens(self, spec: BackendSpec) -> int:
        """See ``router.perf.build.context_limit_tokens``."""
        return build.context_limit_tokens(spec, catalog=self.catalog)

    def max_context_tokens(self, spec: BackendSpec) -> int:
        """See ``router.perf.build.max_context_tokens``."""
        return build.max_context_tokens(spec, catalog=self.catalog)

    def engine_defaults(self, spec: BackendSpec) -> EngineDefaults:
        """See ``router.perf.build.engine_defaults``."""
        return build.engine_defaults(spec, catalog=self.catalog)

    def check_feasible(self, spec: BackendSpec) -> None:
        """See ``router.perf.build.check_feasible``."""
        build.check_feasible(spec, catalog=self.catalog)
