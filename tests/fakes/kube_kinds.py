"""The resources that the fake Kubernetes API knows, and how it tells of them."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Kind:
    """One resource."""

    group: str
    name: str
    namespaced: bool = True
    version: str = "v1"
    scalable: bool = False

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version


RBAC, OPERATOR = "rbac.authorization.k8s.io", "monitoring.coreos.com"
KINDS = {
    "pods": Kind("", "Pod"),
    "services": Kind("", "Service"),
    "configmaps": Kind("", "ConfigMap"),
    "secrets": Kind("", "Secret"),
    "serviceaccounts": Kind("", "ServiceAccount"),
    "persistentvolumeclaims": Kind("", "PersistentVolumeClaim"),
    "nodes": Kind("", "Node", namespaced=False),
    "namespaces": Kind("", "Namespace", namespaced=False),
    "endpointslices": Kind("discovery.k8s.io", "EndpointSlice"),
    "leases": Kind("coordination.k8s.io", "Lease"),
    "deployments": Kind("apps", "Deployment", scalable=True),
    "statefulsets": Kind("apps", "StatefulSet", scalable=True),
    "poddisruptionbudgets": Kind("policy", "PodDisruptionBudget"),
    "networkpolicies": Kind("networking.k8s.io", "NetworkPolicy"),
    "ingresses": Kind("networking.k8s.io", "Ingress"),
    "horizontalpodautoscalers": Kind("autoscaling", "HorizontalPodAutoscaler", version="v2"),
    "roles": Kind(RBAC, "Role"),
    "rolebindings": Kind(RBAC, "RoleBinding"),
    "clusterroles": Kind(RBAC, "ClusterRole", namespaced=False),
    "clusterrolebindings": Kind(RBAC, "ClusterRoleBinding", namespaced=False),
    "servicemonitors": Kind(OPERATOR, "ServiceMonitor"),
    "podmonitors": Kind(OPERATOR, "PodMonitor"),
    "prometheusrules": Kind(OPERATOR, "PrometheusRule"),
    "scaledobjects": Kind("keda.sh", "ScaledObject", version="v1alpha1"),
    "httproutes": Kind("gateway.networking.k8s.io", "HTTPRoute"),
}
VERBS = ["get", "list", "watch", "create", "update", "patch", "delete"]


def group_list(absent: Collection[str]) -> dict[str, Any]:
    """The answer of ``/apis``."""
    versions = sorted({(k.group, k.version) for k in KINDS.values() if k.group not in absent})
    return {
        "kind": "APIGroupList",
        "apiVersion": "v1",
        "groups": [
            {
                "name": group,
                "versions": [{"groupVersion": f"{group}/{version}", "version": version}],
                "preferredVersion": {"groupVersion": f"{group}/{version}", "version": version},
            }
            for group, version in versions
            if group
        ],
    }


def resource_list(group: str, version: str, absent: Collection[str]) -> dict[str, Any] | None:
    """The answer of ``/apis/GROUP/VERSION``; ``None`` where there is no such thing."""
    found = {
        plural: kind
        for plural, kind in KINDS.items()
        if (kind.group, kind.version) == (group, version) and group not in absent
    }
    if not found:
        return None
    return {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": f"{group}/{version}" if group else version,
        "resources": [
            {
                "name": plural,
                "singularName": kind.name.lower(),
                "namespaced": kind.namespaced,
                "kind": kind.name,
                "verbs": VERBS,
            }
            for plural, kind in found.items()
        ],
    }
