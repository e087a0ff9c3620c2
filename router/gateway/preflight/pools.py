"""Whether a pool can run: does its model fit its cards, and are there nodes with such cards?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from router.config.fleet import build_fleet
from router.domain.errors import BadInputError
from router.domain.fleet import BackendSpec
from router.gateway.discovery.line import BACKEND, read_line
from router.gateway.preflight.finding import Finding, Thing, note, problem
from router.perf.gpu_names import gpu_of
from router.perf.hardware import Hardware

PRODUCT, MEMORY = "nvidia.com/gpu.product", "nvidia.com/gpu.memory"
GPU_SUFFIX = "/gpu"
_HARD = ("NoSchedule", "NoExecute")


def pools_of(deployments: Iterable[Thing]) -> list[Thing]:
    """The deployments that run engines."""
    return [d for d in deployments if BACKEND in (d["metadata"].get("annotations") or {})]


def findings(pool: Thing, nodes: Sequence[Thing] | None, hardware: Hardware) -> list[Finding]:
    """What keeps one pool from running.

    Args:
        pool: its deployment.
        nodes: of the cluster; ``None`` where they may not be seen.
        hardware: the catalogue.
    """
    name = pool["metadata"]["name"]
    line = pool["metadata"]["annotations"][BACKEND]
    try:
        spec = build_fleet([read_line(line, name=name)], hardware).backends[0]
    except BadInputError as error:
        return [problem(f"pool {name}: {str(error).removeprefix(f'backend {name!r}: ')}")]
    pod = pool["spec"]["template"]["spec"]
    found = _about_cards(name, spec, pod)
    if nodes is not None and _cards(pod):
        found += _about_nodes(name, spec, pool, nodes)
        found += _about_kind(name, spec, chosen_by(pod, nodes), list(hardware.catalog.gpus))
    return found


def _about_cards(name: str, spec: BackendSpec, pod: Thing) -> list[Finding]:
    cards = _cards(pod)
    if cards and cards != spec.tensor_parallel:
        return [
            problem(
                f"pool {name}: its container asks for {cards} cards and its engine spans "
                f"{spec.tensor_parallel}: make the resource limit and tensorParallel equal"
            )
        ]
    return []


def _about_nodes(
    name: str, spec: BackendSpec, pool: Thing, nodes: Sequence[Thing]
) -> list[Finding]:
    pod = pool["spec"]["template"]["spec"]
    chosen = chosen_by(pod, nodes)
    if not chosen:
        selector: Mapping[str, str] = pod.get("nodeSelector") or {}
        shown = ", ".join(f"{key}={value}" for key, value in selector.items())
        return [
            problem(
                f"pool {name}: no node has the labels {shown}: its node pool does not exist, is "
                f"scaled to nought, or is labelled otherwise (kubectl get nodes --show-labels); "
                "an autoscaler may still make one"
            )
        ]
    ready = [node for node in chosen if _is_ready(node)]
    if not ready:
        names = ", ".join(node["metadata"]["name"] for node in chosen)
        return [
            problem(
                f"pool {name}: none of its nodes is ready ({names}): kubectl describe node says "
                "why; the driver, the network, or the node pool is still being made"
            )
        ]
    resource = _resource(pod)
    with_cards = [node for node in ready if _amount(node, resource) >= spec.tensor_parallel]
    if not with_cards:
        most = max(_amount(node, resource) for node in ready)
        return [_too_few_cards(name, spec, resource, most, ready)]
    tolerated = [n for n in with_cards if not _obstacles(n, pod.get("tolerations") or [])]
    if not tolerated:
        taint = _obstacles(with_cards[0], pod.get("tolerations") or [])[0]
        return [
            problem(
                f"pool {name}: its nodes are tainted {taint} and its pods do not tolerate that: "
                f"add it to tolerations of the pool"
            )
        ]
    return _about_room(name, spec, pool, tolerated, resource)


def chosen_by(pod: Thing, nodes: Sequence[Thing]) -> list[Thing]:
    """Nodes with the labels that a pod asks for."""
    selector: Mapping[str, str] = pod.get("nodeSelector") or {}
    return [node for node in nodes if selector.items() <= _labels(node).items()]


def _too_few_cards(
    name: str, spec: BackendSpec, resource: str, most: int, ready: Sequence[Thing]
) -> Finding:
    node = ready[0]["metadata"]["name"]
    if most:
        return problem(
            f"pool {name}: an engine spans {spec.tensor_parallel} cards and its nodes have "
            f"{most}: use larger nodes, or lower tensorParallel"
        )
    return problem(
        f"pool {name}: its nodes (such as {node}) offer no {resource}: install NVIDIA's device "
        "plugin (or the GPU operator) and wait for the driver"
    )


def _about_room(
    name: str, spec: BackendSpec, pool: Thing, nodes: Sequence[Thing], resource: str
) -> list[Finding]:
    wanted = pool["spec"].get("replicas", 1)
    room = sum(_amount(node, resource) // spec.tensor_parallel for node in nodes)
    if wanted <= room:
        return []
    return [
        note(
            f"pool {name}: {wanted} replicas are wanted and its nodes have room for {room}: the "
            "rest waits until the node pool grows"
        )
    ]


def _about_kind(
    name: str, spec: BackendSpec, nodes: Sequence[Thing], known: Sequence[str]
) -> list[Finding]:
    """A selector that leads to another card than the pool is planned with."""
    for node in nodes:
        labels = _labels(node)
        memory = labels.get(MEMORY, "")
        size_gb = int(memory) / 1024 if memory.isdigit() else None
        real = gpu_of(labels[PRODUCT], known, size_gb) if PRODUCT in labels else None
        if real is not None and real != spec.gpu:
            return [
                problem(
                    f"pool {name}: says {spec.gpu}, and its node {node['metadata']['name']} has "
                    f"{labels[PRODUCT]} ({real}): correct gpu or nodeSelector"
                )
            ]
    return []


def _labels(node: Thing) -> dict[str, str]:
    return node["metadata"].get("labels") or {}


def _is_ready(node: Thing) -> bool:
    conditions = (node.get("status") or {}).get("conditions") or []
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def _amount(node: Thing, resource: str) -> int:
    text = str(((node.get("status") or {}).get("allocatable") or {}).get(resource, "0"))
    return int(text) if text.isdigit() else 0


def _resource(pod: Thing) -> str:
    limits: Mapping[str, Any] = pod["containers"][0].get("resources", {}).get("limits") or {}
    return next((name for name in limits if name.endswith(GPU_SUFFIX)), "")


def _cards(pod: Thing) -> int:
    resource = _resource(pod)
    limits = pod["containers"][0].get("resources", {}).get("limits") or {}
    return int(limits[resource]) if resource else 0


def _obstacles(node: Thing, tolerations: Sequence[Thing]) -> list[str]:
    """Taints that nothing tolerates, as kubectl spells them."""
    taints = (node.get("spec") or {}).get("taints") or []
    return [
        f"{taint['key']}={taint.get('value', '')}:{taint['effect']}"
        for taint in taints
        if taint["effect"] in _HARD and not any(_tolerates(t, taint) for t in tolerations)
    ]


def _tolerates(toleration: Thing, taint: Thing) -> bool:
    if toleration.get("effect") not in (None, "", taint["effect"]):
        return False
    if toleration.get("operator") == "Exists":
        return toleration.get("key") in (None, "", taint["key"])
    same = (taint["key"], taint.get("value", ""))
    return (toleration.get("key"), toleration.get("value", "")) == same
