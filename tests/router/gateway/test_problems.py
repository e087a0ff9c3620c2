"""Six error shapes in, one out. The engines' answers were recorded from real servers."""

from __future__ import annotations

import gzip
import json
import zlib

import pytest

from router.domain.decision import Reject
from router.gateway.error_shape import _told
from router.gateway.problems import Problem, from_engine, from_reject, in_band

VLLM = (
    b'{"error":{"message":"max_tokens must be at least 1, got 0.","type":"BadRequestError",'
    b'"param":"max_tokens","code":400}}'
)
SGLANG = (
    b'{"object":"error","message":"The input (120005 tokens) is longer than the model\'s context'
    b' length (4096 tokens).","type":"BadRequestError","param":null,"code":400}'
)
SGLANG_FULL = (
    b'{"object":"error","message":"The request queue is full.","type":"503","param":null,'
    b'"code":503}'
)


@pytest.mark.parametrize(
    ("status", "body", "message", "kind", "param_and_code"),
    [
        (
            400,
            VLLM,
            "max_tokens must be at least 1, got 0.",
            "BadRequestError",
            ("max_tokens", None),
        ),
        (
            400,
            SGLANG,
            "The input (120005 tokens) is longer than the model's context length (4096 tokens).",
            "BadRequestError",
            (None, "context_length_exceeded"),
        ),
        (503, SGLANG_FULL, "The request queue is full.", "service_unavailable_error", (None, None)),
        (401, b'{"error":"Unauthorized"}', "Unauthorized", "authentication_error", (None, None)),
        (404, b'{"detail":"Not Found"}', "Not Found", "invalid_request_error", (None, None)),
        (500, b"Internal Server Error", "Internal Server Error", "api_error", (None, None)),
        (500, b"", "Backend t4-0 answered 500 and said nothing.", "api_error", (None, None)),
        (500, b'{"error":{}}', "Backend t4-0 answered 500 and said nothing.", "api_error",
         (None, None)),
        (500, b"[1]", "[1]", "api_error", (None, None)),
        (500, b"\xff\xfe", "��", "api_error", (None, None)),
    ],
)  # fmt: skip
def test_every_engines_error_comes_out_in_one_shape(
    status: int, body: bytes, message: str, kind: str, param_and_code: tuple[str | None, ...]
) -> None:
    problem = from_engine(status, body, "t4-0")
    param, code = param_and_code
    assert problem.status == status
    assert json.loads(problem.body()) == {
        "error": {"message": message, "type": kind, "param": param, "code": code}
    }


@pytest.mark.parametrize(
    ("told", "seconds"), [(b"37", b"37"), (b"0", b"1"), (b"1.5", b"1"), (b"9" * 400, b"1")]
)
def test_an_engine_that_says_when_to_come_back_is_quoted(told: bytes, seconds: bytes) -> None:
    problem = from_engine(429, b"", "t4-0", {b"retry-after": told})
    assert (b"retry-after", seconds) in problem.headers()


def test_an_error_that_was_compressed_on_the_way_is_read() -> None:
    for packed in (gzip.compress(VLLM), zlib.compress(VLLM)):
        told = from_engine(400, packed, "t4-0", {b"content-encoding": b"gzip"})
        assert told == from_engine(400, VLLM, "t4-0")
    plain = from_engine(400, VLLM, "t4-0", {b"content-encoding": b"identity"})
    assert plain == from_engine(400, VLLM, "t4-0")
    torn = from_engine(400, b"\x1f\x8b no gzip", "t4-0", {b"content-encoding": b"gzip"})
    assert torn.message == "Backend t4-0 answered 400 and said nothing."


def test_busy_engines_tell_clients_when_to_come_back() -> None:
    assert (b"retry-after", b"1") in from_engine(503, SGLANG_FULL, "t4-0").headers()
    assert not any(name == b"retry-after" for name, _ in from_engine(400, VLLM, "x").headers())


@pytest.mark.parametrize(
    ("reason", "status", "code"),
    [
        ("unknown_model", 404, "model_not_found"),
        ("context_too_long", 400, "context_length_exceeded"),
        ("no_healthy_backend", 503, "no_healthy_backend"),
        ("queue_full", 503, "queue_full"),
        ("queue_timeout", 503, "queue_timeout"),
        ("all_backends_tried", 503, "all_backends_tried"),
    ],
)
def test_every_rejection_has_its_status(reason: str, status: int, code: str) -> None:
    problem = from_reject(Reject(reason, "because"))  # type: ignore[arg-type]
    assert (problem.status, problem.code) == (status, code)
    retry = [value for name, value in problem.headers() if name == b"retry-after"]
    assert retry == ([b"1"] if status == 503 else [])


def test_retry_after_is_rounded_up_to_whole_seconds() -> None:
    assert (b"retry-after", b"3") in Problem(503, "x", retry_after_s=2.1).headers()


@pytest.mark.parametrize(
    ("event", "status"),
    [
        (b'data: {"error": {"object": "error", "message": "full", "code": 503}}', 503),
        (b'data: {"error": {"message": "bad", "code": 400}}', 400),
        (b'data: {"error": {"message": "dead", "code": "oops"}}', 500),
        (b'data: {"error": "dead"}', 500),
        (b'event: error\ndata: {"type":"error","code":"server_error","message":"dead"}', 500),
        (b'event: error\ndata: {"type":"error","error":{"type":"api_error"}}', 500),
        (b': comment\ndata: {"error": {"message": "full", "code": 429}}', 429),
    ],
)
def test_an_error_inside_a_stream_is_recognised(event: bytes, status: int) -> None:
    problem = in_band(event, "t4-0")
    assert problem is not None
    assert problem.status == status


@pytest.mark.parametrize(
    "event",
    [
        b'data: {"choices":[{"delta":{"content":"hi"}}]}',
        b'data: {"choices":[{"delta":{"content":"the \\"error\\" is"}}]}',
        b'data: {"choices":[],"error":null}',
        b'data: {"choices":[{"error":{"code":500}}]}',
        b'data: "error"',
        b'data: [{"type":"error"}]',
        b'data: not json "error"',
        b"data: [DONE]",
    ],
)
def test_ordinary_events_are_no_errors(event: bytes) -> None:
    assert in_band(event, "t4-0") is None


@pytest.mark.parametrize(
    ("finding", "told"),
    [
        ({"type": "missing", "loc": ("body", "a", 0), "msg": "Field required"}, "a.0: Field"),
        ({"type": "missing", "loc": ("body",), "msg": "Field required"}, "body: Field required"),
        (
            {"type": "json_invalid", "loc": ("body", 7), "ctx": {"error": "Expecting value"}},
            "The request body is not valid JSON: Expecting value.",
        ),
    ],
)
def test_what_fastapi_finds_is_told_by_its_place(finding: dict[str, object], told: str):
    assert _told(finding).startswith(told)
