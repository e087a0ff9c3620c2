"""What it means for a request that its attempt came to nothing before its first byte."""

from __future__ import annotations

from router.gateway.problems import RETRY_AFTER_S, Problem
from router.gateway.seams import Setback


def refused(problem: Problem) -> Setback:
    """The backend answered, and the answer is an error.

    501 (llama.cpp's to embeddings of a model for chat) speaks of what was asked: another engine may
    be able to, and nobody's breaker opens, or one client could cut off a whole fleet.
    """
    busy = problem.status in (429, 503)
    # The gateway sends only what the backend is said to serve: one that does not know the model
    # was started again with another, and would swallow request after request, being idle.
    stranger = problem.status == 404 and problem.code == "model_not_found"
    retryable = busy or stranger or problem.status >= 500
    reason = "busy" if busy else "model" if stranger else "error"
    return Setback(problem, retryable, busy or problem.status == 501, reason)


def unanswered(backend: str, kind: str, message: str) -> Setback:
    """The backend did not answer.

    Args:
        backend: its name.
        kind: ``connect``, ``timeout``, ``broken`` or ``garbage``.
        message: what it did instead, for people.
    """
    status = {"connect": 503, "timeout": 504}.get(kind, 502)
    problem = Problem(
        status,
        f"Backend {backend} {message}.",
        code=f"backend_{kind}",
        retry_after_s=RETRY_AFTER_S if status == 503 else None,
    )
    return Setback(problem, reason=kind)
