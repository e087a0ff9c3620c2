"""Service classes in the file: their targets, and whether what is said of them makes sense."""

from __future__ import annotations

from collections.abc import Mapping

from router.config.schema import AdmissionSection, DisaggregationSection, SloSection
from router.domain.errors import ConfigError, UnknownNameError
from router.domain.fleet import BackendSpec, Fleet
from router.domain.slo import DEFAULT_SLOS, Slo


def slos_of(sections: Mapping[str, SloSection]) -> dict[str, Slo]:
    """Targets by class: the defaults, with those of the file in their place or beside them."""
    return dict(DEFAULT_SLOS) | {name: _slo(name, section) for name, section in sections.items()}


def _slo(name: str, section: SloSection) -> Slo:
    models = {model: Slo(name, **targets.model_dump()) for model, targets in section.models.items()}
    return Slo(name, section.ttft_s, section.tpot_s, section.e2e_s, models)


def check_classes(
    admission: AdmissionSection,
    sections: Mapping[str, SloSection],
    slos: Mapping[str, Slo],
    fleet: Fleet | None,
) -> None:
    """Make sure that every class and model that is named exists.

    Args:
        admission: how classes are scheduled.
        sections: the file's own targets.
        slos: all targets.
        fleet: the backends; ``None`` where any may yet be discovered.

    Raises:
        ConfigError: targets for a model that no backend serves.
        UnknownNameError: a class that does not exist.
    """
    for name, section in sections.items():
        strange = sorted(set(section.models) - fleet.models) if fleet is not None else []
        if strange:
            raise ConfigError(
                f"slos.{name}.models names {strange[0]!r}, which no backend serves; "
                f"served: {', '.join(sorted(fleet.models if fleet else ()))}"
            )
    for name in admission.max_wait_s:
        if name not in slos:
            raise UnknownNameError("service class", name, slos)


def check_roles(fleet: Fleet, disaggregation: DisaggregationSection) -> None:
    """Make sure that nobody has half a role where requests are not split.

    Raises:
        ConfigError: otherwise; or a prefill server of SGLang without a bootstrap port, or one
            half of a model that no other backend completes.
    """
    for spec in fleet.backends:
        if spec.role != "both" and not disaggregation.enabled:
            raise ConfigError(
                f"backend {spec.name!r} has the role {spec.role!r}, and requests are not split "
                "here: set disaggregation.enabled: true, or leave the role out"
            )
        if spec.role != "both" and spec.engine == "llamacpp":
            raise ConfigError(
                f"backend {spec.name!r}: llama.cpp cannot hand over its KV, so it has no role "
                f"{spec.role!r}: leave the role out"
            )
        if spec.role == "prefill" and spec.engine == "sglang" and spec.bootstrap_port is None:
            raise ConfigError(
                f"backend {spec.name!r}: a prefill server of SGLang needs its bootstrap_port "
                "(--disaggregation-bootstrap-port, 8998 unless you gave another)"
            )
    for spec in fleet.backends:
        if spec.role != "both" and not _other_half(spec, fleet):
            raise ConfigError(
                f"backend {spec.name!r} is for {spec.role} only, and no other backend of "
                f"{spec.model!r} with the same engine, engine_version and quantization does the "
                "other half"
            )


def _other_half(spec: BackendSpec, fleet: Fleet) -> bool:
    def kin(one: BackendSpec) -> tuple[str, ...]:
        return one.model, one.engine, one.engine_version, one.quantization

    return any(
        other.role != spec.role and kin(other) == kin(spec)
        for other in fleet.backends
        if spec.engine == "vllm" or other.role != "both"
    )


def check_fallbacks(fallbacks: Mapping[str, list[str]], fleet: Fleet) -> None:
    """Make sure that every model is served and none stands in for itself.

    Raises:
        ConfigError: otherwise.
    """
    for model, others in fallbacks.items():
        for name in (model, *others):
            if name not in fleet.models:
                raise ConfigError(
                    f"fallbacks names {name!r}, which no backend serves; "
                    f"served: {', '.join(sorted(fleet.models))}"
                )
        if model in others:
            raise ConfigError(f"fallbacks: {model!r} cannot stand in for itself")
