"""What routing reads of a request, and that it leaves the rest alone."""

from __future__ import annotations

import json
import time

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.gateway.rewriting import with_model, with_priority_turned
from router.gateway.wire import (
    HOP_BY_HOP,
    BadRequestError,
    RoutingFields,
    end_to_end,
    prompt_bytes,
    routing_fields,
    token_limit,
)


def test_only_the_routing_fields_are_read() -> None:
    fields = routing_fields(b'{"model":"m","max_tokens":5,"tools":[{"x":[1,2,{"y":null}]}]}')
    assert fields == RoutingFields(model="m", max_tokens=5)


@pytest.mark.parametrize(
    ("field", "value", "limit"),
    [
        ("max_tokens", 7, 7),
        ("max_completion_tokens", 7, 7),
        ("max_output_tokens", 7, 7),
        ("max_tokens", 7.0, 7),
        ("max_tokens", None, None),
        ("max_tokens", 0, None),
        ("max_tokens", -3, None),
        ("max_tokens", 1e300, None),
        ("max_tokens", "many", None),
        ("max_tokens", "7", 7),
        ("max_tokens", "9" * 5000, None),
        ("max_tokens", [7], None),
        ("max_tokens", True, None),
    ],
)
def test_the_token_limit_by_whatever_name(field: str, value: object, limit: int | None) -> None:
    body = json.dumps({"model": "m", field: value}).encode()
    assert token_limit(routing_fields(body)) == limit


def test_a_limit_of_a_wrong_type_hides_nothing_else() -> None:
    """Lenient engines take it, so class, streaming and prompt must be known all the same."""
    body = b'{"model":"m","stream":true,"service_tier":"flex","prompt":"p","max_tokens":"5"}'
    lenient, strict = routing_fields(body), routing_fields(body.replace(b'"5"', b"5"))
    assert msgspec.structs.asdict(lenient) == msgspec.structs.asdict(strict)


def test_the_new_name_wins_over_the_old() -> None:
    fields = routing_fields(b'{"model":"m","max_tokens":5,"max_completion_tokens":9}')
    assert token_limit(fields) == 9


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        (b"", "invalid_json", None),
        (b"{", "invalid_json", None),
        (b"[]", "invalid_json", None),
        (b'"model"', "invalid_json", None),
        (b"null", "invalid_json", None),
        (b'{"model":"m"} trailing', "invalid_json", None),
        (b'{"model":"\xff"}', "invalid_json", None),
        (b'{"model":3}', "invalid_json", "model"),
        (b'{"model":""}', "missing_model", "model"),
        (b'{"model":null}', "missing_model", "model"),
        (b'{"messages":[]}', "missing_model", "model"),
        (b'{"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "invalid_json", None),
    ],
)
def test_what_cannot_be_routed_is_refused(body: bytes, code: str, param: str | None) -> None:
    with pytest.raises(BadRequestError) as caught:
        routing_fields(body)
    problem = caught.value.problem
    assert (problem.status, problem.code, problem.param) == (400, code, param)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"model":"gpt","x":1}', b'{"model":"llama","x":1}'),
        (b'{ "x":1.50 , "model" : "gpt" }', b'{ "x":1.50 , "model" : "llama" }'),
        (
            b'{"messages":[{"model":"gpt"}],"model":"gpt"}',
            b'{"messages":[{"model":"gpt"}],"model":"llama"}',
        ),
        (
            b'{"messages":[{"content":"\\"model\\":\\"gpt\\" {[ "}],"model":"gpt"}',
            b'{"messages":[{"content":"\\"model\\":\\"gpt\\" {[ "}],"model":"llama"}',
        ),
        (b'{"model":"a","model":"gpt"}', b'{"model":"llama","model":"llama"}'),
        (b'{"x":"model","model":"gpt"}', b'{"x":"model","model":"llama"}'),
        (b'{"model":"a\\"b\\\\"}', b'{"model":"llama"}'),
        (
            b'{"\\"model":1,"[model":"[","model":"gpt"}',
            b'{"\\"model":1,"[model":"[","model":"llama"}',
        ),
        (
            b'{"a\\"model":"model","x":[{"model":"b"}]}',
            b'{"a\\"model":"model","x":[{"model":"b"}]}',
        ),
        (
            b'{"model":{"model":"b"},"x":"\\\\","model":"gpt"}',
            b'{"model":{"model":"b"},"x":"\\\\","model":"llama"}',
        ),
    ],
)
def test_an_alias_is_replaced_and_nothing_else(body: bytes, expected: bytes) -> None:
    assert with_model(body, "llama") == expected


JSON = st.recursive(
    st.none() | st.integers() | st.sampled_from(["model", '"model":', "{", "]", "\\", '\\"', "a"]),
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(st.sampled_from(["model", '"model', 'model"', "{", "\\", "x"]), inner)
    ),
    max_leaves=20,
)


@given(JSON, JSON)
def test_whatever_stands_around_it(before: object, behind: object) -> None:
    whole = {"before": before, "model": "gpt", "behind": behind}
    renamed = with_model(json.dumps(whole).encode(), "llama")
    assert json.loads(renamed) == whole | {"model": "llama"}


def test_a_key_that_stands_there_again_and_again_costs_no_more() -> None:
    again = b'"model":"gpt","priority":7,' * 500_000
    body = b'{"x":[{' + again + b'"y":"\\u00e9"}],' + again + b'"priority":-9, "z" : 1.50}'
    began_s = time.process_time()
    renamed, turned = with_model(body, "llama"), with_priority_turned(body)
    assert time.process_time() - began_s < 2.0  # a third of a second; by one's place 6
    assert json.loads(renamed) == json.loads(body) | {"model": "llama"}
    assert json.loads(turned) == json.loads(body) | {"priority": 9}
    assert b"1.50" in renamed, "values are not read"


@pytest.mark.parametrize(
    ("text", "within_s"),
    [("a b" * 4_000_000, 0.6), ('\\"' * 3_000_000, 0.6), (";base64,A" * 1_000_000, 1.5)],
    ids=["plain", "escapes", "images"],
)
def test_a_large_prompt_does_not_keep_everybody_waiting(text: str, within_s: float) -> None:
    """One by one its characters took a second for every 10 MB, and nobody was served meanwhile;
    its images, each written out for what it costs, took as much for every MB."""
    body = json.dumps({"model": "gpt", "messages": [text], "priority": 1}).encode()
    began_s = time.process_time()
    assert with_model(body, "llama") == body.replace(b"gpt", b"llama")
    assert with_priority_turned(body).endswith(b"-1}")
    assert prompt_bytes(body) > 0
    assert time.process_time() - began_s < within_s


def test_hop_by_hop_headers_stay_behind_and_so_do_those_that_connection_names() -> None:
    headers = [
        (b"connection", b"keep-alive, X-Trace"),
        (b"x-trace", b"1"),
        (b"te", b"trailers"),
        (b"transfer-encoding", b"chunked"),
        (b"proxy-authorization", b"secret"),
        (b"cookie", b"c"),
        (b"x-other", b"2"),
    ]
    assert end_to_end(headers, HOP_BY_HOP | {b"cookie"}) == [(b"x-other", b"2")]


def test_an_image_counts_for_what_it_costs_not_for_its_base64() -> None:
    image = b'{"url":"data:image/png;base64,' + b"A" * 1_000_000 + b'"}'
    assert 4_000 <= prompt_bytes(image) < 4_100
    assert prompt_bytes(b'{"x":1}') == 7


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"model":"m","priority":5}', b'{"model":"m","priority":-5}'),
        (b'{"priority" : -10 , "model":"m"}', b'{"priority" : 10 , "model":"m"}'),
        (b'{"priority":0}', b'{"priority":-0}'),
        (b'{"priority":null,"x":{"priority":3}}', b'{"priority":null,"x":{"priority":3}}'),
        (b'{"prompt":"\\"priority\\":7,"}', b'{"prompt":"\\"priority\\":7,"}'),
        (b'{"priority":1.5}', b'{"priority":1.5}'),  # the engine's to judge
        (b'{"model":"m"}', b'{"model":"m"}'),
    ],
)
def test_a_priority_is_negated_and_nothing_else(body: bytes, expected: bytes) -> None:
    assert with_priority_turned(body) == expected
