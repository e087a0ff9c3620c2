"""One call per question about a backend: how fast, how much KV, how long a context, can it run.

Everything is derived from the ``BackendSpec``, the catalogue and, where given, the user's own
measurements (``overrides``); nothing is cached, so keep what you build.
"""

from __future__ import annotations

from collections.abc import Sequence

from router.domain.fleet import BackendSpec
from router.perf import engines, feasible
from router.perf.catalog import Catalog, default_catalog
from router.perf.engines import EngineDefaults, resolve_engine
from router.perf.priors import Override, iteration_model_from, measured_for, priors_for
from router.perf.roofline import IterationModel


def iteration_model(
    spec: BackendSpec, *, overrides: Sequence[Override] = (), catalog: Catalog | None = None
) -> IterationModel:
    """Iteration time of a backend, from priors or from the overrides that match it.

    An iteration measured on a live engine (``MeasuredCost``) beats all constants but the
    ``prefill_factor`` and ``decode_factor``.

    Raises:
        UnknownNameError: a GPU, model or weight format that does not exist.
    """
    known = catalog or default_catalog()
    gpu = known.gpu(spec.gpu)
    priors = priors_for(spec, gpu, overrides)
    measured = measured_for(spec, overrides)
    if measured is not None:
        return measured.iteration_model().scaled(priors.prefill_factor, priors.decode_factor)
    return iteration_model_from(
        priors,
        gpu,
        known.model(spec.model),
        feasible.quantization_of(spec, known),
        spec.tensor_parallel,
    )


def kv_capacity_tokens(spec: BackendSpec, *, catalog: Catalog | None = None) -> int:
    """KV capacity of the whole backend in tokens; a measured one beats the derived one."""
    if spec.kv_capacity_tokens is not None:
        return spec.kv_capacity_tokens
    known = catalog or default_catalog()
    engine = engine_defaults(spec, catalog=known)
    if engine.set_kv_tokens is not None:
        return engine.set_kv_tokens
    fits = feasible.budget_of(spec, known).kv_tokens(engine.block_tokens)
    return fits if engine.most_kv_tokens is None else min(fits, engine.most_kv_tokens)


def max_context_tokens(spec: BackendSpec, *, catalog: Catalog | None = None) -> int:
    """Longest prompt plus output the backend accepts: its limit, and never more than its KV."""
    known = catalog or default_catalog()
    limit = context_limit_tokens(spec, catalog=known)
    return min(limit, kv_capacity_tokens(spec, catalog=known))


def context_limit_tokens(spec: BackendSpec, *, catalog: Catalog | None = None) -> int:
    """Longest prompt plus output that the backend would accept with KV enough."""
    known = catalog or default_catalog()
    return engines.context_limit_tokens(spec, known.gpu(spec.gpu), known.model(spec.model))


def engine_defaults(spec: BackendSpec, *, catalog: Catalog | None = None) -> EngineDefaults:
    """The engine's settings for this GPU and version, those of ``spec`` laid over them."""
    known = catalog or default_catalog()
    return resolve_engine(spec, known.gpu(spec.gpu), known.model(spec.model))


def check_feasible(spec: BackendSpec, *, catalog: Catalog | None = None) -> None:
    """Raise if the backend cannot run, saying by how much and what would.

    Raises:
        UnknownNameError: a GPU, model, engine or weight format that does not exist.
        ConfigError: an engine version that cannot be read.
        ImpossibleFleetError: memory, dtype, tensor parallelism, context or engine support.
    """
    feasible.check(spec, catalog or default_catalog())
