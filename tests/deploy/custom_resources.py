"""The shape of the custom resources that the chart makes, as far as the chart uses them.

Their operators' own schemas are in no package that can be had offline: these say by hand which
fields there are, after the Prometheus operator's, KEDA's and Gateway API's references.
"""

from __future__ import annotations

from typing import Any

from jsonschema import Draft7Validator

TEXT = {"type": "string"}
WHOLE = {"type": "integer", "minimum": 0}
LABELS = {"type": "object", "additionalProperties": TEXT}


def mapping(*required: str, **properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "additionalProperties": False,
        "required": list(required),
        "properties": properties,
    }


def several(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "minItems": 1, "items": items}


DURATION = {"type": "string", "pattern": r"^([0-9]+(ms|s|m|h))+$"}
ENDPOINTS = several(mapping("port", port=TEXT, path=TEXT, interval=DURATION))
SELECTOR = mapping("matchLabels", matchLabels=LABELS)
RULE = {
    **mapping(
        "expr",
        alert=TEXT,
        record=TEXT,
        expr=TEXT,
        labels=LABELS,
        annotations=LABELS,
        **{"for": DURATION},
    ),
    "oneOf": [{"required": ["alert"]}, {"required": ["record"]}],
}
TRIGGER = {
    **mapping(
        "type",
        "metadata",
        type={"enum": ["cpu", "prometheus"]},
        metricType={"enum": ["Utilization", "AverageValue", "Value"]},
        metadata=LABELS,  # KEDA takes strings only
    ),
    "if": {"properties": {"type": {"const": "prometheus"}}},
    "then": {
        "properties": {"metadata": {"required": ["serverAddress", "query", "threshold"]}},
    },
}
ROUTE_DURATION = {"type": "string", "pattern": r"^([0-9]{1,5}(h|m|s|ms)){1,4}$"}

SHAPES = {
    ("monitoring.coreos.com/v1", "ServiceMonitor"): mapping(
        "selector", "endpoints", jobLabel=TEXT, selector=SELECTOR, endpoints=ENDPOINTS
    ),
    ("monitoring.coreos.com/v1", "PodMonitor"): mapping(
        "selector",
        "podMetricsEndpoints",
        selector=SELECTOR,
        podTargetLabels=several(TEXT),
        podMetricsEndpoints=ENDPOINTS,
    ),
    ("monitoring.coreos.com/v1", "PrometheusRule"): mapping(
        "groups",
        groups=several(
            mapping("name", "rules", name=TEXT, interval=DURATION, rules=several(RULE)),
        ),
    ),
    ("keda.sh/v1alpha1", "ScaledObject"): mapping(
        "scaleTargetRef",
        "triggers",
        scaleTargetRef=mapping("name", name=TEXT),
        minReplicaCount=WHOLE,
        maxReplicaCount=WHOLE,
        cooldownPeriod=WHOLE,
        triggers=several(TRIGGER),
    ),
    ("gateway.networking.k8s.io/v1", "HTTPRoute"): mapping(
        "parentRefs",
        "rules",
        parentRefs=several(mapping("name", name=TEXT, namespace=TEXT, sectionName=TEXT)),
        hostnames=several(TEXT),
        rules=several(
            mapping(
                matches=several(
                    mapping(path=mapping("type", "value", type=TEXT, value=TEXT)),
                ),
                timeouts=mapping(request=ROUTE_DURATION, backendRequest=ROUTE_DURATION),
                backendRefs=several(mapping("name", "port", name=TEXT, port=WHOLE)),
            )
        ),
    ),
}


def complaints(thing: dict[str, Any]) -> list[str]:
    """What is wrong with a custom resource; unknown kinds are wrong."""
    shape = SHAPES.get((thing["apiVersion"], thing["kind"]))
    if shape is None:
        return [f"no {thing['kind']} in {thing['apiVersion']}"]
    found = Draft7Validator(shape).iter_errors(thing["spec"])
    return [f"{'.'.join(map(str, error.path))}: {error.message}" for error in found]
