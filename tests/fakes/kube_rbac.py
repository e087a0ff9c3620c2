"""What roles and bindings let a service account do, as the API server's authorizer decides."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tests.fakes.kube_kinds import KINDS

Object = dict[str, Any]


def allowed(
    objects: Mapping[tuple[str, str, str], Object],
    who: str,
    verb: str,
    resource: str,
    namespace: str,
) -> bool:
    """Whether ``namespace:serviceaccount`` may; ``resource`` with its subresource, if any."""
    group = KINDS[resource.partition("/")[0]].group
    return any(
        _has(rule["verbs"], verb)
        and _has(rule["resources"], resource)
        and group in rule["apiGroups"]
        for rule in _rules(objects, who, namespace)
    )


def _rules(
    objects: Mapping[tuple[str, str, str], Object], who: str, namespace: str
) -> Iterator[Object]:
    account_namespace, _, account = who.partition(":")
    for (kind, where, _), binding in objects.items():
        if kind not in ("rolebindings", "clusterrolebindings"):
            continue
        if kind == "rolebindings" and where != namespace:
            continue
        bound = any(
            s["kind"] == "ServiceAccount"
            and (s["name"], s.get("namespace", where)) == (account, account_namespace)
            for s in binding.get("subjects") or []
        )
        if bound:
            ref = binding["roleRef"]
            named = ("roles", where) if ref["kind"] == "Role" else ("clusterroles", "")
            role = objects.get((*named, ref["name"]), {})
            yield from role.get("rules") or []


def _has(listed: list[str], wanted: str) -> bool:
    return "*" in listed or wanted in listed
