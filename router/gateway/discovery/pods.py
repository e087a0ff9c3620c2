"""Pods as endpoints: for those who select pods by label and have no service in front of them."""

from __future__ import annotations

from collections.abc import Mapping

from router.gateway.discovery.informer import Thing


def as_slices(pods: Mapping[str, Thing]) -> dict[str, Thing]:
    """What the EndpointSlices of a service that selects these pods would say.

    Args:
        pods: by name.
    """
    return {"pods": {"endpoints": [_endpoint(pod) for pod in pods.values()], "ports": []}}


def _endpoint(pod: Thing) -> Thing:
    meta, status = pod.get("metadata") or {}, pod.get("status") or {}
    address = status.get("podIP")
    return {
        "addresses": [address] if address else [],
        "nodeName": (pod.get("spec") or {}).get("nodeName"),
        "targetRef": {"kind": "Pod", "name": meta.get("name", "")},
        "conditions": {
            "ready": any(
                one.get("type") == "Ready" and one.get("status") == "True"
                for one in status.get("conditions") or []
            ),
            "terminating": bool(meta.get("deletionTimestamp")),
        },
    }
