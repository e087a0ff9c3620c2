"""On what terms a client wants to be served: class, targets, tenant, explanation, fallback.

Names are the field's: our own headers first, then those of other routers.

==============  ===================================================================================
class           ``x-motley-class``, ``x-motley-slo``, ``x-smg-priority`` (``system``,
                ``interactive``, ``default``, ``bulk``); body ``slo_class``, or OpenAI's
                ``service_tier`` (``priority`` is interactive, ``flex`` is bulk)
targets         ``x-slo-ttft-ms``, ``x-slo-tpot-ms``, ``x-slo-e2e-ms`` (also as
                ``x-llm-d-slo-...``), ``x-sgl-ttft-slo-ms``, ``x-sgl-tps-slo`` (tokens per second)
tenant          ``x-tenant-id``, ``x-llm-d-inference-fairness-id``
explanation     ``x-motley-explain: 1``
fallback        ``x-motley-fallback: allow``
continuation    ``x-motley-continue: 1`` or ``0``; body ``motley_continue``
==============  ===================================================================================
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from router.domain.errors import BadInputError
from router.domain.slo import Slo
from router.gateway.problems import Problem
from router.gateway.wire import BadRequestError

Named = Mapping[bytes, bytes]

EXPLAIN = b"x-motley-explain"
FALLBACK = b"x-motley-fallback"
CONTINUE = b"x-motley-continue"
_CLASS = (b"x-motley-class", b"x-motley-slo")
_PRIORITY = b"x-smg-priority"
_PRIORITIES = {"system": "interactive", "interactive": "interactive", "bulk": "bulk", "default": ""}
_TIERS = {"priority": "interactive", "flex": "bulk", "auto": "", "default": "", "scale": ""}


def _ms(text: str) -> float:
    return float(text) / 1000.0


def _per_s(text: str) -> float:
    return 1.0 / float(text)


_TARGETS: dict[bytes, tuple[str, Callable[[str], float]]] = {
    b"x-slo-ttft-ms": ("ttft_s", _ms),
    b"x-slo-tpot-ms": ("tpot_s", _ms),
    b"x-slo-e2e-ms": ("e2e_s", _ms),
    b"x-llm-d-slo-ttft-ms": ("ttft_s", _ms),
    b"x-llm-d-slo-tpot-ms": ("tpot_s", _ms),
    b"x-llm-d-slo-e2e-ms": ("e2e_s", _ms),
    b"x-sgl-ttft-slo-ms": ("ttft_s", _ms),
    b"x-sgl-tps-slo": ("tpot_s", _per_s),
}
_TARGET_NAMES = frozenset(_TARGETS)
_TENANT = (b"x-tenant-id", b"x-llm-d-inference-fairness-id")
_SESSION = b"x-session-id"
_TERMS = frozenset((*_CLASS, _PRIORITY, *_TARGETS, *_TENANT, _SESSION, EXPLAIN, FALLBACK))
NO_TERMS: Named = {}


def terms_in(headers: Named) -> Named:
    """The headers, or none if no terms are among them, which is soon looked through."""
    return NO_TERMS if _TERMS.isdisjoint(headers) else headers


def class_of(headers: Named, body_class: object, tier: object, default: str) -> str:
    """The name of the service class; whether it exists is not looked at.

    Args:
        headers: names in lower case.
        body_class, tier: ``slo_class`` and ``service_tier`` of the body, whatever they are.
        default: for who asks for none.
    """
    if headers:
        for name in _CLASS:
            if name in headers:
                return headers[name].decode("latin-1").strip()
    if isinstance(body_class, str) and body_class:
        return body_class
    if _PRIORITY in headers:
        asked = headers[_PRIORITY].decode("latin-1").strip().lower()
        return _PRIORITIES.get(asked, asked) or default
    return (_TIERS.get(tier, "") if isinstance(tier, str) else "") or default


def targets_of(headers: Named, slo: Slo) -> Slo | None:
    """The targets the request asks for itself; ``None`` if it asks for none.

    Args:
        headers: names in lower case.
        slo: targets of its class for its model, which hold where it asks for nothing.

    Raises:
        BadRequestError: a target that is no positive number, or targets that contradict each
            other or the class's own.
    """
    if not headers or _TARGET_NAMES.isdisjoint(headers):
        return None
    asked: dict[str, float] = {}
    for name, (target, read) in _TARGETS.items():
        if name in headers and target not in asked:
            asked[target] = _read(name, headers[name], read)
    try:
        return slo.asking(**asked)
    except BadInputError as error:
        raise BadRequestError(Problem(400, f"{error}.", code="contradictory_slo")) from error


def _read(name: bytes, value: bytes, read: Callable[[str], float]) -> float:
    try:
        target = read(value.decode("latin-1"))
    except (ValueError, ZeroDivisionError):
        target = -1.0
    if not 0 < target < float("inf"):
        unit = "tokens per second" if name.endswith(b"tps-slo") else "milliseconds"
        raise BadRequestError(
            Problem(
                400,
                f"The header {name.decode()} must be a positive number of {unit}, "
                f"not {value.decode('latin-1')!r}.",
                code="invalid_slo",
            )
        )
    return target


def tenant_of(headers: Named) -> str:
    """Who pays, as far as headers tell; empty if they do not."""
    first, other = _TENANT
    return (headers.get(first) or headers.get(other, b"")).decode("latin-1") if headers else ""


def session_of(headers: Named) -> str:
    """Which conversation it belongs to; empty if headers do not tell."""
    return headers[_SESSION].decode("latin-1") if _SESSION in headers else ""


def wants(headers: Named, name: bytes) -> bool:
    """Whether a yes-or-no header says yes."""
    value = headers.get(name)
    return value is not None and value.strip().lower() in (b"1", b"true", b"yes", b"on", b"allow")


def says_no(headers: Named, name: bytes) -> bool:
    """Whether a yes-or-no header says no."""
    value = headers.get(name)
    return value is not None and value.strip().lower() in (b"0", b"false", b"no", b"off", b"deny")
