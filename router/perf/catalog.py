"""The catalogue of GPUs, models and weight formats, read from the TOML files beside it.

``gpu("a100-80")`` and ``model("llama-3.1-8b")`` answer from the built-in catalogue, read once on
first use. A fleet that has a card or a model of its own extends it:
``default_catalog().extended(models=[ModelSpec(...)])``.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from typing import Any, TypeVar

from router.domain.errors import ConfigError, UnknownNameError
from router.perf.specs import Capability, GpuSpec, ModelSpec, QuantizationSpec

T = TypeVar("T")
DESCRIBE_IT = (
    "Another is described under 'models:' in the fleet file (parameters, layers, hidden_size, "
    "kv_heads)."
)


@dataclass(frozen=True, slots=True)
class Catalog:
    """GPUs, models and weight formats by name."""

    gpus: Mapping[str, GpuSpec]
    models: Mapping[str, ModelSpec]
    quantizations: Mapping[str, QuantizationSpec]

    def gpu(self, name: str) -> GpuSpec:
        """The GPU of this name.

        Raises:
            UnknownNameError: no such GPU.
        """
        return _look_up("GPU", name, self.gpus)

    def model(self, name: str) -> ModelSpec:
        """The model of this name, or with this name among its ``also``.

        Raises:
            UnknownNameError: no such model.
        """
        if name in self.models:
            return self.models[name]
        for known in self.models.values():
            if name in known.also:
                return known
        raise UnknownNameError("model", name, self.models, remedy=DESCRIBE_IT)

    def quantization(self, name: str) -> QuantizationSpec:
        """The weight format of this name.

        Raises:
            UnknownNameError: no such format.
        """
        return _look_up("quantization", name, self.quantizations)

    def extended(
        self, *, gpus: Iterable[GpuSpec] = (), models: Iterable[ModelSpec] = ()
    ) -> Catalog:
        """This catalogue with more entries; a name that exists is replaced."""
        return Catalog(
            gpus={**self.gpus, **{g.name: g for g in gpus}},
            models={**self.models, **{m.name: m for m in models}},
            quantizations=self.quantizations,
        )


@lru_cache(maxsize=1)
def default_catalog() -> Catalog:
    """The built-in catalogue."""
    quantizations = _read("quantizations.toml")
    gpus = _read("gpus.toml")
    sources = gpus.pop("sources")
    return Catalog(
        gpus={name: _gpu(name, table, sources) for name, table in gpus.items()},
        models={name: _model(name, table) for name, table in _read("models.toml").items()},
        quantizations={name: _quantization(name, table) for name, table in quantizations.items()},
    )


def gpu(name: str) -> GpuSpec:
    """A GPU of the built-in catalogue; raises ``UnknownNameError``."""
    return default_catalog().gpu(name)


def model(name: str) -> ModelSpec:
    """A model of the built-in catalogue; raises ``UnknownNameError``."""
    return default_catalog().model(name)


def gpu_names() -> tuple[str, ...]:
    """Names of the built-in GPUs, in the order of the file."""
    return tuple(default_catalog().gpus)


def model_names() -> tuple[str, ...]:
    """Names of the built-in models, in the order of the file."""
    return tuple(default_catalog().models)


def _look_up(kind: str, name: str, known: Mapping[str, T]) -> T:
    try:
        return known[name]
    except KeyError:
        raise UnknownNameError(kind, name, known) from None


def _read(file: str) -> dict[str, Any]:
    return tomllib.loads(resources.files("router.perf").joinpath(file).read_text("utf-8"))


def _gpu(name: str, table: Mapping[str, Any], sources: Mapping[str, str]) -> GpuSpec:
    figures: dict[str, float] = {}
    origins: dict[str, str] = {}
    for key, entry in table.items():
        if isinstance(entry, list):
            value, source = entry
            figures[key] = float(value)
            origins[key] = sources[source]
    return GpuSpec(
        name=name,
        architecture=table["architecture"],
        compute_capability=parse_capability(table["compute_capability"]),
        confidence=table["confidence"],
        sources=origins,
        **figures,
    )


def _model(name: str, table: Mapping[str, Any]) -> ModelSpec:
    return ModelSpec(name=name, **{**table, "also": tuple(table["also"])})


def _quantization(name: str, table: Mapping[str, Any]) -> QuantizationSpec:
    capabilities = {
        key: parse_capability(table[key]) for key in ("min_compute_capability", "native_from")
    }
    return QuantizationSpec(name=name, **{**table, **capabilities})


def parse_capability(text: str) -> Capability:
    """``"8.0"`` as ``(8, 0)``.

    Raises:
        ConfigError: not of that form.
    """
    major, dot, minor = text.partition(".")
    if not (dot and major.isdigit() and minor.isdigit()):
        raise ConfigError(f"compute capability {text!r} is not of the form 8.0")
    return int(major), int(minor)
