"""production-stack's Helm values: engines that its chart deploys become Kubernetes discovery."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from router.cli.importers.flags import read_flags
from router.cli.importers.found import Found, Service, listing, mapping
from router.perf.catalog import gpu_names
from router.perf.gpu_names import gpu_of

ENGINE_PORT = 8000

_CHART = "of the chart, not of the router: see deploy/helm/motley"
_ENGINE = "the engine's own business: leave it with the engine"
_PROBES = "probes of the chart: see deploy/helm/motley"
ENGINES_WHY: Mapping[str, str] = {
    "runtimeClassName": _ENGINE,
    "schedulerName": _ENGINE,
    "tolerations": _ENGINE,
    "labels": "labels of the engines stay as they are; services are found by name",
    "configs": _ENGINE,
    "strategy": _ENGINE,
    "securityContext": _ENGINE,
    "containerSecurityContext": _ENGINE,
    "startupProbe": _PROBES,
    "livenessProbe": _PROBES,
    "readinessProbe": _PROBES,
    "imagePullPolicy": _ENGINE,
    "servicePort": "engines are reached at their pods' addresses",
    "extraPorts": _ENGINE,
    "maxUnavailablePodDisruptionBudget": _CHART,
    "serviceMonitor": _CHART,
}
MODEL_WHY: Mapping[str, str] = {
    "replicaCount": "ready pods are discovered, however many there are",
    "keda": "the engines' autoscaling goes on by itself; or let Motley place replicas "
    "(planner.placement)",
    "lmcacheConfig": "engines share KV by themselves; prefixes are followed here anyway",
    "chatTemplate": _ENGINE,
    "enableLoRA": "name the adapters under adapters: {ADAPTER: MODEL}",
    "raySpec": "an engine over several machines is one backend: set tensor_parallel to its cards",
}
VLLM_WHY: Mapping[str, str] = {
    "v0": "say which vLLM runs: template.engine_version",
    "enablePrefixCaching": "the engine tells what it found cached",
    "enableChunkedPrefill": "assumed as the engine's version has it by default",
    "dtype": "taken from the card: fp16 below Ampere, the model's own above",
    "maxNumSeqs": "learned; or list the engines under backends: with max_num_seqs",
    "gpuMemoryUtilization": "KV size is read off the engine's metrics",
    "maxLoras": "name the adapters under adapters: {ADAPTER: MODEL}",
    "runner": "engines are not asked for embeddings through the planner; requests pass",
    "convert": "engines are not asked for embeddings through the planner; requests pass",
}
ROUTER_WHY: Mapping[str, str] = {
    "sessionKey": "sessions follow x-session-id; prefixes of prompts are used anyway",
    "requestStatsWindow": "choose windows in Prometheus",
    "k8sServiceDiscoveryType": "pods are always reached by their addresses",
    "otel": "set telemetry.otlp_endpoint (OTLP over HTTP, port 4318)",
    "hf_token": "Motley loads no tokenizer",
    "lmcacheControllerPort": "LMCache's controller is not asked; prefixes are followed here",
    "rootPath": "strip the path in the proxy in front",
}
_OWN_SECTIONS = ("servingEngineSpec", "routerSpec")
_WHY = {
    "cacheserverSpec": "engines use LMCache's server by themselves; nothing to route",
    "loraController": "adapters are loaded by production-stack's operator; it can stay",
    "sharedStorage": _CHART,
    "grafanaDashboards": "see deploy/grafana",
}


def is_values(content: Mapping[str, Any]) -> bool:
    """Whether a YAML file looks like production-stack's values."""
    return bool({"servingEngineSpec", "routerSpec"} & content.keys())


def read_values(content: Mapping[str, Any], release: str, namespace: str | None) -> Found:
    """Take the values apart.

    Args:
        content: of the values file.
        release: name of the Helm release, part of the services' names.
        namespace: where it is installed; ``None`` for the gateway's own.

    Raises:
        ConfigError: a section is of the wrong kind.
    """
    found = Found("production-stack's Helm values")
    engines = mapping(content.get("servingEngineSpec"), "servingEngineSpec")
    router = mapping(content.get("routerSpec"), "routerSpec")
    if router.get("serviceDiscovery") != "static" and engines.get("enableEngine", True):
        _services(found, engines, release, namespace)
    _engines_rest(found, engines)
    _router(found, router)
    _adapters(found, content.get("loraAdapters"))
    found.lose_rest("", content, (*_OWN_SECTIONS, "loraAdapters"), _WHY)
    return found


def _services(
    found: Found, engines: Mapping[str, Any], release: str, namespace: str | None
) -> None:
    specs = listing(engines.get("modelSpec"), "servingEngineSpec.modelSpec")
    for n, item in enumerate(specs):
        place = f"servingEngineSpec.modelSpec[{n}]"
        spec = mapping(item, place)
        if spec.get("enabled", True) is False:
            found.lose(f"{place} ({spec.get('name')})", "enabled: false; it is not deployed")
            continue
        where = {"namespace": namespace} if namespace else {}
        fields: dict[str, Any] = {
            "service": f"{release}-{spec.get('name')}-engine-service",
            **where,
            "port": int(engines.get("containerPort") or ENGINE_PORT),
        }
        found.services.append(_service(found, spec, place, fields))
    if specs:
        found.notes.append(
            f"services are named after the Helm release {release!r}; say --release if it is another"
        )


def _service(found: Found, spec: Mapping[str, Any], place: str, fields: dict[str, Any]) -> Service:
    vllm = mapping(spec.get("vllmConfig"), f"{place}.vllmConfig")
    arguments = _Arguments(listing(vllm.get("extraArgs"), f"{place}.vllmConfig.extraArgs"))
    template: dict[str, Any] = {}
    length = vllm.get("maxModelLen") or arguments.take("--max-model-len")
    if length:
        template["max_model_len"] = int(length)
    version = re.fullmatch(r"v?(\d+\.\d+(?:\.\d+)?)", str(spec.get("tag", "")))
    if version:
        template["engine_version"] = version[1]
    quantization = arguments.take("--quantization")
    if quantization:
        template["quantization"] = quantization
    tensor_parallel = vllm.get("tensorParallelSize") or arguments.take("--tensor-parallel-size")
    gpu = next(filter(None, (gpu_of(told, gpu_names()) for told in _cards(spec))), "")
    if not gpu:
        found.notes.append(
            f"{place}: the card is read off its node's labels (nvidia.com/gpu.product), which "
            "needs 'get' on nodes; or give --gpu"
        )
    model = str(spec.get("modelURL") or "")
    public = arguments.take("--served-model-name") or ""
    found.lose_rest(place, spec, _SPEC_TAKEN, {**_engine_keys(spec), **MODEL_WHY})
    found.lose_rest(f"{place}.vllmConfig", vllm, _VLLM_TAKEN, VLLM_WHY)
    for argument in arguments.left():
        found.lose(f"{place}.vllmConfig.extraArgs {argument}", _ENGINE)
    return Service(
        served=model,
        public=public or model,
        gpu=gpu,
        tensor_parallel=int(tensor_parallel or _cards_of(spec)),
        fields=fields,
        template=template,
    )


_SPEC_TAKEN = ("name", "enabled", "tag", "modelURL", "vllmConfig", "requestGPU", "requestGPUType")
_VLLM_TAKEN = ("maxModelLen", "tensorParallelSize", "extraArgs")


def _engine_keys(spec: Mapping[str, Any]) -> dict[str, str]:
    """Everything else of a deployment is the engine's."""
    return {key: _ENGINE for key in spec if key not in MODEL_WHY}


def _cards_of(spec: Mapping[str, Any]) -> int:
    asked = str(spec.get("requestGPU", "1"))
    return max(1, int(asked)) if asked.isdecimal() else 1


def _cards(spec: Mapping[str, Any]) -> Iterator[str]:
    """Whatever in the node selection may be the name of a card."""
    for term in listing(spec.get("nodeSelectorTerms"), "nodeSelectorTerms"):
        for expression in (term or {}).get("matchExpressions") or []:
            if str(expression.get("operator", "In")) == "In":
                yield from map(str, expression.get("values") or [])
    yield from map(str, mapping(spec.get("nodeSelector"), "nodeSelector").values())


class _Arguments:
    """Arguments of an engine, taken one by one: ``--name value`` or ``--name=value``."""

    def __init__(self, words: list[Any]) -> None:
        self._words = [str(word) for word in words]

    def take(self, name: str) -> str | None:
        for n, word in enumerate(self._words):
            flag, mark, inline = word.partition("=")
            if flag == name and mark:
                del self._words[n]
                return inline
            if word == name and n + 1 < len(self._words):
                value = self._words[n + 1]
                del self._words[n : n + 2]
                return value
        return None

    def left(self) -> Iterator[str]:
        """What nobody took; a flag with its value in one piece."""
        piece: list[str] = []
        for word in self._words:
            if word.startswith("--") and piece:
                yield " ".join(piece)
                piece = []
            piece.append(word)
        if piece:
            yield " ".join(piece)


def _engines_rest(found: Found, engines: Mapping[str, Any]) -> None:
    if engines.get("vllmApiKey"):
        _engine_key(found, "servingEngineSpec.vllmApiKey", engines["vllmApiKey"])
    taken = ("enableEngine", "modelSpec", "containerPort", "vllmApiKey")
    found.lose_rest("servingEngineSpec", engines, taken, ENGINES_WHY)


def _engine_key(found: Found, place: str, key: Any) -> None:
    secret = isinstance(key, dict)
    if secret and not key.get("secretName"):
        return
    found.set("upstream.api_key_env", "VLLM_API_KEY")
    where = f"from {key['secretName']}/{key.get('secretKey')}" if secret else "(it is not copied)"
    found.notes.append(f"{place}: give the gateway VLLM_API_KEY {where}")


_ROUTER_TAKEN = (
    *("enableRouter", "serviceDiscovery", "staticBackends", "staticModels", "routingLogic"),
    *("extraArgs", "engineScrapeInterval", "vllmApiKey", "containerPort"),
)


def _router(found: Found, router: Mapping[str, Any]) -> None:
    arguments = [str(word) for word in listing(router.get("extraArgs"), "routerSpec.extraArgs")]
    if router.get("serviceDiscovery") == "static":
        arguments += ["--static-backends", str(router.get("staticBackends") or "")]
        arguments += ["--static-models", str(router.get("staticModels") or "")]
    inner = read_flags(arguments, found.origin, "vllm")
    found.engines += inner.engines
    found.settings += inner.settings
    found.aliases |= inner.aliases
    found.lost += inner.lost
    found.notes += inner.notes
    found.policy = str(router.get("routingLogic") or inner.policy)
    interval = router.get("engineScrapeInterval")
    if interval:
        found.scrape_every("routerSpec.engineScrapeInterval", float(interval))
    if router.get("vllmApiKey") and "upstream.api_key_env=VLLM_API_KEY" not in found.settings:
        _engine_key(found, "routerSpec.vllmApiKey", router["vllmApiKey"])
    others = {key: _CHART for key in router if key not in ROUTER_WHY}
    found.lose_rest("routerSpec", router, _ROUTER_TAKEN, {**others, **ROUTER_WHY})


def _adapters(found: Found, adapters: Any) -> None:
    for n, item in enumerate(listing(adapters, "loraAdapters")):
        adapter = mapping(item, f"loraAdapters[{n}]")
        if adapter.get("enabled", True) is not False:
            source = mapping(adapter.get("adapterSource"), f"loraAdapters[{n}].adapterSource")
            name = source.get("adapterName") or adapter.get("name")
            found.lose(
                f"loraAdapters[{n}] ({name})",
                f"once every engine of the model has it, add adapters: {{{name}: MODEL}}",
            )
