"""FastAPI's errors in the one OpenAI shape."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException
from starlette.routing import Match

from router.gateway.door import HOT_PATHS
from router.gateway.problems import DEFECT, Problem, ProblemError
from router.gateway.request_id import request_id_of


def install(api: FastAPI) -> None:
    """Teach ``api`` the shape for every error it can answer with."""
    api.add_exception_handler(ProblemError, _own)
    api.add_exception_handler(HTTPException, _http)
    api.add_exception_handler(RequestValidationError, _validation)
    api.add_exception_handler(UnicodeEncodeError, _half_a_character)
    api.add_exception_handler(Exception, _unexpected)


def _answer(
    request: Request, problem: Problem, extra: list[tuple[bytes, bytes]] | None = None
) -> Response:
    answer = Response(problem.body(), status_code=problem.status)
    request_id = request_id_of(dict(request.scope["headers"]).get(b"x-request-id"))
    named = [(b"x-request-id", request_id.encode())]
    answer.raw_headers = [*problem.headers(), *named, *(extra or [])]
    return answer


async def _own(request: Request, error: Exception) -> Response:
    assert isinstance(error, ProblemError)
    return _answer(request, error.problem)


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    plain = _without_slash(request) if error.status_code == 404 else None
    if plain is not None:
        return Response(status_code=307, headers={"location": plain})
    path = request.url.path
    message = {
        404: f"There is nothing at {path}. {_meant(path)}GET /docs lists every path.",
        405: f"{path} does not take {request.method}.",
    }.get(error.status_code, str(error.detail))
    extra = [(k.lower().encode(), v.encode()) for k, v in (error.headers or {}).items()]
    code = "request_too_large" if error.status_code == 413 else None
    return _answer(request, Problem(error.status_code, message, code=code), extra)


def _without_slash(request: Request) -> str | None:
    """The way to the same path without its last slash, if there is something.

    Relative, unlike Starlette's own: we do not know what name, scheme and prefix the client used
    when somebody in front of us ends its TLS.
    """
    path = request.scope["path"]
    plain = {**request.scope, "path": path[:-1]}
    if path[-1:] != "/" or not any(
        route.matches(plain)[0] is not Match.NONE for route in request.app.routes
    ):
        return None
    query = request.scope["query_string"].decode("latin-1")
    return f"../{quote(path[:-1].rpartition('/')[2], safe='')}{'?' * bool(query)}{query}"


def _meant(path: str) -> str:
    """A hint for a base URL with ``/v1`` too few, or too many; else empty."""
    plain = "/" + path.strip("/")
    for meant in (f"/v1{plain}", plain.removeprefix("/v1"), plain):
        if meant != path and (meant.encode() in HOT_PATHS or meant == "/v1/models"):
            return f"Did you mean {meant}? See whether your client's base URL should end in /v1. "
    return ""


async def _validation(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    if _is_mistyped(request, error):
        message = "The body is not read as JSON: send 'content-type: application/json' with it."
        return _answer(request, Problem(400, message, code="invalid_request"))
    findings = "; ".join(map(_told, error.errors()))
    return _answer(request, Problem(400, findings, code="invalid_request"))


def _told(finding: dict[str, Any]) -> str:
    if finding["type"] == "json_invalid":  # its place is an offset
        return f"The request body is not valid JSON: {finding['ctx']['error']}."
    return f"{'.'.join(str(part) for part in finding['loc'][1:]) or 'body'}: {finding['msg']}"


def _is_mistyped(request: Request, error: RequestValidationError) -> bool:
    """Whether the body was taken for text, as curl's ``-d`` alone has it."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    json_type = kind == "application/json" or kind.endswith("+json")
    bodies = [finding for finding in error.errors() if finding["loc"] == ("body",)]
    return not json_type and any(finding.get("input") is not None for finding in bodies)


async def _half_a_character(request: Request, error: Exception) -> Response:  # noqa: ARG001
    message = "The request holds half a character (a surrogate without its other half)."
    return _answer(request, Problem(400, message, code="invalid_request"))


async def _unexpected(request: Request, error: Exception) -> Response:  # noqa: ARG001
    return _answer(request, DEFECT)
