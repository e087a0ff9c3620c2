"""Why pods are not ready, in one line each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime

from router.gateway.preflight.finding import Finding, Thing, note, problem

_PULL = ("ImagePullBackOff", "ErrImagePull", "InvalidImageName", "ErrImageNeverPull")
OUT_OF_MEMORY = 137


def findings(pods: Sequence[Thing], now: datetime) -> list[Finding]:
    """What keeps pods from serving; the same reason is said once, with how many it is true for."""
    counts: dict[Finding, list[str]] = {}
    for pod in pods:
        for found in _about(pod, now):
            counts.setdefault(found, []).append(pod["metadata"]["name"])
    return [
        Finding(found.kind, f"pod {_shown(names)}: {found.text}") for found, names in counts.items()
    ]


def _shown(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"


def _about(pod: Thing, now: datetime) -> Iterator[Finding]:
    if pod["metadata"].get("deletionTimestamp"):
        return
    status = pod.get("status") or {}
    for condition in status.get("conditions") or []:
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            yield _unschedulable(str(condition.get("message", "")))
            return
    if status.get("reason") == "Evicted":
        yield problem(f"evicted: {status.get('message', '')}; its node is short of disk or memory")
        return
    for container in status.get("containerStatuses") or []:
        yield from _container(container, pod, now)


def _unschedulable(message: str) -> Finding:
    told = message.partition(" preemption:")[0].rstrip(" .")
    lowered = told.lower()
    if "persistentvolumeclaim" in lowered:
        remedy = "look at cache.storageClassName and accessModes of its pool"
    elif "insufficient nvidia.com/gpu" in lowered:
        remedy = "all cards are taken; grow the node pool, or lower replicas"
    elif "affinity/selector" in lowered:
        remedy = "no node has the labels of nodeSelector; make the node pool, or correct it"
    elif "taint" in lowered:
        remedy = "add the taint to tolerations of its pool"
    else:
        remedy = "kubectl describe pod says more"
    return problem(f"cannot be scheduled ({told}): {remedy}")


def _container(container: Thing, pod: Thing, now: datetime) -> Iterator[Finding]:
    state = container.get("state") or {}
    waiting = state.get("waiting") or {}
    reason, message = waiting.get("reason", ""), str(waiting.get("message", "")).strip()
    if reason in _PULL:
        yield problem(
            f"cannot pull the image {container.get('image', '')} ({message or reason}): check "
            "image.repository and image.tag of its pool, and imagePullSecrets"
        )
    elif reason == "CreateContainerConfigError":
        yield problem(f"cannot start ({message}): create the secret or config map that it names")
    elif reason == "CrashLoopBackOff":
        yield _crashed(container)
    elif state.get("running") and not container.get("ready"):
        yield _loading(state["running"], pod, now)


def _crashed(container: Thing) -> Finding:
    last = (container.get("lastState") or {}).get("terminated") or {}
    code, why = last.get("exitCode", "?"), last.get("reason", "")
    if why == "OOMKilled" or code == OUT_OF_MEMORY:
        return problem(
            "its container is killed for memory again and again: raise resources.limits.memory of "
            "its pool (weights pass through main memory)"
        )
    return problem(
        f"its container ends again and again (exit {code}): kubectl logs --previous says why; too "
        "little GPU memory, or a release that does not know the card, are usual"
    )


def _loading(running: Thing, pod: Thing, now: datetime) -> Finding:
    minutes = (now - _time(running["startedAt"])).total_seconds() / 60
    most = _allowed_minutes(pod)
    text = f"runs since {minutes:.0f} min and is not ready"
    if most:
        return note(f"{text}: it loads its model; {most:.0f} min are allowed (loadSeconds)")
    return note(f"{text}: kubectl logs says what it does")


def _allowed_minutes(pod: Thing) -> float:
    for container in (pod.get("spec") or {}).get("containers") or []:
        probe = container.get("startupProbe")
        if probe:
            return float(probe.get("periodSeconds", 10) * probe.get("failureThreshold", 3) / 60)
    return 0.0


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text.replace("Z", "+00:00"))
