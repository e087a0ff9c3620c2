"""From an endpoint of Kubernetes, its pod and its node to one backend.

The endpoint says where, the pod what (labels and annotations, or a whole line of ``backends`` in
``motley.dev/backend``, as the chart writes it), the node on which card; what all of them leave out
comes from the template of the source.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from router.config.discovery import KubernetesSource
from router.config.load import explain
from router.config.schema import BackendEntry
from router.domain.errors import ConfigError
from router.domain.fleet import ENGINES
from router.gateway.discovery.informer import Thing
from router.gateway.discovery.line import read_line
from router.perf.gpu_names import gpu_of

PREFIX = "motley.dev/"
_PRODUCT_LABELS = (
    "nvidia.com/gpu.product",
    "cloud.google.com/gke-accelerator",
    "karpenter.k8s.aws/instance-gpu-name",
    "k8s.amazonaws.com/accelerator",
    "accelerator",
)
_MEMORY_MIB_LABELS = ("nvidia.com/gpu.memory", "karpenter.k8s.aws/instance-gpu-memory")
_TEXTS = {"model": "model", "engine": "engine", "zone": "zone", "quantization": "quantization"}
_NUMBERS = {
    "tensor-parallel": "tensor_parallel",
    "max-model-len": "max_model_len",
    "max-num-seqs": "max_num_seqs",
    "kv-capacity-tokens": "kv_capacity_tokens",
}
_MOST_DIGITS = 9
_REMEDIES = {
    "gpu": f"its GPU type is unknown%s: annotate the pod with {PREFIX}gpu, label its node with "
    "nvidia.com/gpu.product, or set discovery.kubernetes[].template.gpu",
    "model": f"its model is unknown: annotate the pod with {PREFIX}model, or set "
    "discovery.kubernetes[].template.model",
    "port": "its service has no such port: set discovery.kubernetes[].port",
}


class Endpoints:
    """Makes entries of endpoints.

    Args:
        settings: the section of the file.
        gpus: names in the catalogue.
    """

    def __init__(self, settings: KubernetesSource, gpus: Sequence[str]) -> None:
        self._settings, self._gpus = settings, gpus

    def entry(
        self,
        endpoint: Thing,
        piece: Thing,
        pod: Thing,
        node: Mapping[str, str],
        said: Mapping[str, Any],
    ) -> BackendEntry | str:
        """One backend, or why it cannot be one.

        Args:
            endpoint: of an EndpointSlice.
            piece: that slice, which has the ports.
            pod: behind the endpoint; empty where it is not known.
            node: labels of the pod's node.
            said: fields of a ``backends`` entry that its engine told.
        """
        name, url = name_of(endpoint), self.url(endpoint, piece)
        told = _told(pod)
        try:
            if "backend" in told and url:
                return read_line(told["backend"], name=name, url=url, count=1)
            fields = self._fields(told, node, said)
            if not url:
                raise ConfigError(_REMEDIES["port"])
            fields["zone"] = fields.get("zone") or endpoint.get("zone") or ""
            return BackendEntry(name=name, url=url, **fields)
        except ConfigError as error:
            return f"{name}: {error}"
        except ValidationError as error:
            return f"{name}: {explain(error)}"

    def _fields(
        self, told: Mapping[str, str], node: Mapping[str, str], said: Mapping[str, Any]
    ) -> dict[str, Any]:
        """What it is: the pod's own word before its engine's, and that before the template's.

        Raises:
            ConfigError: something is missing or cannot be meant.
        """
        fields: dict[str, Any] = self._settings.template.model_dump(exclude_none=True)
        fields |= said
        fields |= {field: told[key] for key, field in _TEXTS.items() if key in told}
        for key, field in _NUMBERS.items():
            if key in told:
                if not told[key].isdecimal() or len(told[key]) > _MOST_DIGITS:
                    raise ConfigError(f"{PREFIX}{key} must be a number, not {told[key][:64]!r}")
                fields[field] = int(told[key])
        fields["gpu"] = self._gpu(told, node) or fields.get("gpu")
        if not fields["gpu"]:
            said_by_node = next((node[name] for name in _PRODUCT_LABELS if name in node), "")
            why = f" (its node says {said_by_node[:64]!r})" if said_by_node else ""
            raise ConfigError(_REMEDIES["gpu"] % why)
        if not fields.get("model"):
            raise ConfigError(_REMEDIES["model"])
        if fields["engine"] not in ENGINES:
            known = ", ".join(ENGINES)
            raise ConfigError(f"{PREFIX}engine must be one of {known}, not {fields['engine']!r}")
        return fields

    def url(self, endpoint: Thing, piece: Thing) -> str:
        """Where it serves; empty where its service has no such port."""
        address, port = endpoint["addresses"][0], _port(piece, self._settings.port)
        shown = f"[{address}]" if ":" in address else address
        return f"{self._settings.scheme}://{shown}:{port}" if port else ""

    def _gpu(self, told: Mapping[str, str], node: Mapping[str, str]) -> str | None:
        if "gpu" in told:
            return gpu_of(told["gpu"], self._gpus) or told["gpu"]
        memory = next((node[label] for label in _MEMORY_MIB_LABELS if label in node), "")
        memory_gb = int(memory) / 1024 if memory.isdigit() else None
        for label in _PRODUCT_LABELS:
            if label in node:
                return gpu_of(node[label], self._gpus, memory_gb)
        return None


def is_ready(endpoint: Thing) -> bool:
    """Absent means ready, as the API defines; a terminating one gets nothing new."""
    conditions = endpoint.get("conditions") or {}
    ready = conditions.get("ready")
    return (
        bool(endpoint.get("addresses")) and ready is not False and not conditions.get("terminating")
    )


def pod_of(endpoint: Thing) -> str:
    """The name of the pod behind it; empty where there is none."""
    target = endpoint.get("targetRef") or {}
    return target.get("name", "") if target.get("kind") == "Pod" else ""


def name_of(endpoint: Thing) -> str:
    """What its backend is called: as its pod, else as its address."""
    return pod_of(endpoint) or str(endpoint["addresses"][0])


def _told(pod: Thing) -> dict[str, str]:
    """What the pod says of itself; annotations win over labels."""
    meta = pod.get("metadata") or {}
    both = {**(meta.get("labels") or {}), **(meta.get("annotations") or {})}
    return {k.removeprefix(PREFIX): v for k, v in both.items() if k.startswith(PREFIX)}


def _port(piece: Thing, wanted: int | str | None) -> int | None:
    if isinstance(wanted, int):
        return wanted
    ports = {port.get("name"): port.get("port") for port in piece.get("ports") or []}
    if wanted is not None:
        return ports.get(wanted)
    return ports.get("http") or next(iter(ports.values()), None)
