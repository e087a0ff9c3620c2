"""From a YAML file to frozen settings, with every mistake named and a remedy beside it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError
from yaml.constructor import ConstructorError

from router.config.access import AccessSection, AdminSection
from router.config.classes import check_classes, check_fallbacks, check_roles, slos_of
from router.config.discovery import DiscoverySection
from router.config.fleet import build_fleet, names_of, urls_of
from router.config.overlay import overlaid
from router.config.planner import PlannerSection
from router.config.schema import (
    AdmissionSection,
    BackendEntry,
    BatchSection,
    ConfigFile,
    DisaggregationSection,
    HedgingSection,
    PolicySection,
    ReliabilitySection,
    ServerSection,
    TelemetrySection,
)
from router.config.section import Section
from router.config.shared import SharedSection
from router.config.upstream import UpstreamSection
from router.config.yaml_error import in_a_line
from router.domain.errors import ConfigError, UnknownNameError
from router.domain.fleet import BackendSpec, Fleet
from router.domain.slo import Slo
from router.perf.catalog import default_catalog
from router.perf.hardware import Hardware
from router.perf.overrides import parse_overrides
from router.perf.specs import ModelSpec
from router.policies.registry import POLICIES


class _BackendsFile(Section):
    backends: list[BackendEntry]


class _Loader(yaml.SafeLoader):
    """YAML silently takes the last of two equal keys; half of somebody's fleet would be lost."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue  # a list or a mapping for a key: the parent says what is wrong with it
            if key.value in seen and key.value != "<<":
                raise ConstructorError(None, None, f"{key.value!r} is given twice", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


@dataclass(frozen=True, slots=True)
class MotleyConfig:
    """Everything the YAML file says, checked.

    Attributes:
        source: path of the file, or "<mapping>".
        fleet: the backends, named and feasible.
        policy: which one, with which parameters and seed.
        slos: targets by class; the defaults where the file names none.
        telemetry, reliability, planner, server, access, admin, discovery, upstream,
            shared: the sections of the file.
        aliases: other names of models.
        adapters: LoRA adapters that every engine of a model has loaded, and that model.
        batch: the Batch API.
        hardware: the catalogue, with the file's own models and measurements.
        admission: how service classes are scheduled, if they are.
        hedging: second attempts, if there are any.
        disaggregation: prompts and answers on different backends, if that is wanted.
        fallbacks: models that may answer in place of one, best first, for requests that allow it.
    """

    source: str
    fleet: Fleet
    policy: PolicySection
    slos: Mapping[str, Slo]
    telemetry: TelemetrySection
    reliability: ReliabilitySection
    planner: PlannerSection
    server: ServerSection
    aliases: Mapping[str, str]
    hardware: Hardware
    access: AccessSection
    admin: AdminSection
    discovery: DiscoverySection
    upstream: UpstreamSection
    shared: SharedSection
    admission: AdmissionSection = field(default_factory=AdmissionSection)
    fallbacks: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    adapters: Mapping[str, str] = field(default_factory=dict)
    hedging: HedgingSection = field(default_factory=HedgingSection)
    batch: BatchSection = field(default_factory=BatchSection)
    disaggregation: DisaggregationSection = field(default_factory=DisaggregationSection)

    @property
    def first_backend(self) -> BackendSpec:
        """Whose model those ask for who name none.

        Raises:
            ConfigError: the file lists no backend, only where a gateway finds some.
        """
        if not self.fleet.backends:
            raise ConfigError(
                f"{self.source} lists no backends, only where a gateway discovers them; for this "
                "list under 'backends' what it found (GET /workers of the gateway tells)"
            )
        return self.fleet.backends[0]


NO_FILE = "<mapping>"


def load_config(
    source: str | Path | Mapping[str, Any], settings: Sequence[str] = ()
) -> MotleyConfig:
    """Read and check a configuration.

    Args:
        source: path of a YAML file, or its content as a mapping.
        settings: laid over it, each ``path=value``; see ``router.config.overlay``.

    Raises:
        ConfigError: the file cannot be read, is no YAML, or holds something unusable; the
            message names the place and the remedy.
    """
    if isinstance(source, Mapping):
        return _checked(overlaid(source, settings), NO_FILE)
    return _checked(overlaid(_read_yaml(Path(source)), settings), str(source))


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 text: {error.reason}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not valid YAML: {in_a_line(error)}") from error
    except RecursionError as error:
        raise ConfigError(f"{path} is nested too deep to be read") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path} must be a mapping with a 'backends' list, not {content!r:.60}")
    return content


def _of(source: str) -> str:
    """Which file it is that something is wrong with, if it is one."""
    return "" if source == NO_FILE else f"{source}: "


def _checked(content: dict[str, Any], source: str) -> MotleyConfig:
    try:
        parsed = ConfigFile.model_validate(content)
    except ValidationError as error:
        raise ConfigError(f"{_of(source)}{explain(error)}") from error
    names = [parsed.policy.name]
    names += [parsed.policy.shadow.name] if parsed.policy.shadow else []
    names += [parsed.policy.canary.name] if parsed.policy.canary else []
    for name in names:
        if name not in POLICIES:
            raise UnknownNameError("policy", name, POLICIES)
    hardware = _hardware(parsed)
    if "backends" not in content and not parsed.discovery:
        raise ConfigError(f"{_of(source)}backends: is missing")
    if parsed.backends or not parsed.discovery:
        fleet = build_fleet(parsed.backends, hardware)
    else:
        fleet = Fleet(())
    if not parsed.discovery:  # what will be discovered may serve any model
        _check_aliases("alias", parsed.aliases, fleet.models | set(parsed.adapters))
        _check_aliases("adapter", parsed.adapters, fleet.models)
        check_fallbacks(parsed.fallbacks, fleet)
    check_roles(fleet, parsed.disaggregation)
    slos = slos_of(parsed.slos)
    check_classes(parsed.admission, parsed.slos, slos, None if parsed.discovery else fleet)
    return MotleyConfig(
        source=source,
        fleet=fleet,
        policy=parsed.policy,
        slos=slos,
        telemetry=parsed.telemetry,
        reliability=parsed.reliability,
        planner=parsed.planner,
        server=parsed.server,
        aliases=parsed.aliases,
        hardware=hardware,
        access=parsed.access,
        admin=parsed.admin,
        discovery=parsed.discovery,
        upstream=parsed.upstream,
        shared=parsed.shared,
        admission=parsed.admission,
        fallbacks={model: tuple(others) for model, others in parsed.fallbacks.items()},
        adapters=parsed.adapters,
        hedging=parsed.hedging,
        batch=parsed.batch,
        disaggregation=parsed.disaggregation,
    )


def read_backends(path: Path) -> list[BackendEntry]:
    """Every backend of a file that holds nothing but ``backends``, one entry for each, all named.

    Raises:
        ConfigError: the file cannot be read or holds something else.
    """
    try:
        parsed = _BackendsFile.model_validate(_read_yaml(path))
    except ValidationError as error:
        raise ConfigError(f"{path}: {explain(error)}") from error
    numbers: Counter[str] = Counter()
    return [
        entry.model_copy(update={"name": name, "url": url, "count": 1})
        for position, entry in enumerate(parsed.backends)
        for url, name in zip(urls_of(entry, position), names_of(entry, numbers), strict=True)
    ]


def _hardware(parsed: ConfigFile) -> Hardware:
    models = [
        ModelSpec(name, **section.model_dump(exclude_none=True))
        for name, section in parsed.models.items()
    ]
    catalog = default_catalog().extended(models=models)
    return Hardware(catalog, parse_overrides(parsed.overrides))


def _check_aliases(kind: str, names: Mapping[str, str], served: Collection[str]) -> None:
    for name, model in names.items():
        if model not in served:
            raise ConfigError(
                f"{kind} {name!r} points to the model {model!r}, which no backend serves; "
                f"served: {', '.join(sorted(served))}"
            )


def explain(error: ValidationError) -> str:
    """Pydantic's findings, one a line, with the place spelled as in the file."""
    lines = []
    for finding in error.errors():
        place = "".join(
            f"[{part}]" if isinstance(part, int) else f".{part}" for part in finding["loc"]
        ).lstrip(".")
        message = finding["msg"].removeprefix("Value error, ")
        if finding["type"] == "extra_forbidden":
            message = "no such setting; check the spelling"
        elif finding["type"] == "missing":
            message = "is missing"
        lines.append(f"{place}: {message}")
    return "; ".join(lines)
