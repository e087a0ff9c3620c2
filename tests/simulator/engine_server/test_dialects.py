"""Each engine's words and shapes, against what live vLLM 0.32.0 and SGLang 0.5.23 answered."""

import json
from random import Random

import pytest

from simulator.engine_server.asks import read_chat, read_completion
from simulator.engine_server.dialect import Head, Limits, Usage
from simulator.engine_server.refusal import InvalidBody, Refusal
from simulator.engine_server.sglang import SglangDialect
from simulator.engine_server.tokens import words
from simulator.engine_server.vllm import VllmDialect
from tests.simulator.engine_server.samples import (
    events,
    need_samples,
    recorded,
    skeleton,
    stream_skeleton,
)

DIALECTS = {"vllm": VllmDialect(), "sglang": SglangDialect()}
engines = pytest.mark.parametrize("engine", DIALECTS)


def stream(engine, kind, *, usage=False, every=False, tokens=6):
    """The events of an answer of some tokens."""
    head = Head(
        kind, "id-1", 1_795_209_026, "m", usage_in_every_chunk=every, usage_at_the_end=usage
    )
    frames, used = DIALECTS[engine].frames(head), Usage(7, 0, 0)
    parts = [frames.opening(used)]
    for i in range(tokens - 1):
        used.completion_tokens = i + 1
        parts.append(frames.token(words(i, i + 1), used))
    used.completion_tokens = tokens
    parts.append(frames.closing(words(tokens - 1, tokens), "length", used))
    return b"".join(parts).decode()


@engines
@pytest.mark.parametrize(
    ("sample", "kind", "options"),
    [
        ("chat_stream_nousage", "chat", {}),
        ("chat_stream_usage", "chat", {"usage": True}),
        ("chat_stream_usage_continuous", "chat", {"usage": True, "every": True}),
    ],
)
def test_chat_streams_have_the_shapes_of_the_real_engine(engine, sample, kind, options):
    need_samples()
    _, _, body = recorded(f"{engine}/{sample}.txt")
    assert stream_skeleton(stream(engine, kind, **options)) == stream_skeleton(body)


@engines
def test_completion_streams_have_the_shapes_of_the_real_engine(engine):
    need_samples()
    _, _, body = recorded(f"{engine}/completion_stream_usage.txt")
    ours, real = (stream_skeleton(b) for b in (stream(engine, "completion", usage=True), body))
    assert ours[:-2] == real[:-2]
    assert ours[-1] == real[-1] == "[DONE]"
    # The usage event: SGLang's has one field more here, as its chat's has.
    assert [key for key, _ in ours[-2]] == [key for key, _ in real[-2]]


@engines
@pytest.mark.parametrize(("sample", "kind"), [("chat", "chat"), ("completion", "completion")])
def test_whole_answers_have_the_shapes_of_the_real_engine(engine, sample, kind):
    need_samples()
    _, _, body = recorded(f"{engine}/{sample}.txt")
    head = Head(kind, "id-1", 1, "m", usage_in_every_chunk=False, usage_at_the_end=False)
    ours = DIALECTS[engine].whole(head, "w0 w1", "length", Usage(7, 2, 0))
    assert skeleton(json.loads(ours)) == skeleton(json.loads(body))


@engines
@pytest.mark.parametrize("kind", ["chat", "completion"])
@pytest.mark.parametrize("tokens", [1, 2, 50])
def test_a_stream_says_every_token_once_in_order_and_why_it_ended(engine, kind, tokens):
    said, reasons = "", []
    for data in events(stream(engine, kind, tokens=tokens))[:-1]:
        for choice in json.loads(data)["choices"]:
            said += choice["delta"].get("content", "") if kind == "chat" else choice["text"]
            reasons.append(choice["finish_reason"])
    assert said == words(0, tokens)
    assert reasons[-1] == "length"
    assert set(reasons[:-1]) <= {None}


@engines
def test_sglang_streams_nothing_for_max_tokens_0_and_still_ends(engine):
    head = Head("chat", "id", 1, "m", usage_in_every_chunk=False, usage_at_the_end=True)
    last = DIALECTS[engine].frames(head).closing("", "length", Usage(7, 0, 0)).decode()
    assert events(last)[-1] == "[DONE]"
    assert '"completion_tokens":0' in last


@engines
def test_model_lists_have_the_shape_of_the_real_engine(engine):
    need_samples()
    _, _, body = recorded(f"{engine}/get_v1_models.txt")
    ours = json.loads(DIALECTS[engine].models(Limits("llama", 4096), 1))
    assert skeleton(ours) == skeleton(json.loads(body))
    assert ours["data"][0]["max_model_len"] == 4096


@engines
def test_tokenize_has_the_shape_of_the_real_engine(engine):
    need_samples()
    dialect, ids = DIALECTS[engine], [1, 2, 3, 4, 5, 6]
    _, _, body = recorded(f"{engine}/tokenize_prompt.txt")
    assert skeleton(json.loads(dialect.tokenized(ids, Limits("m", 9)))) == skeleton(
        json.loads(body)
    )
    _, _, body = recorded(f"{engine}/detokenize.txt")
    assert skeleton(json.loads(dialect.detokenized("x"))) == skeleton(json.loads(body))


# What each engine refuses, with the recorded answer. The recorded servers had a context of 2048
# (vLLM) and 4096 tokens (SGLang).
CHAT = {"model": "tiny-llama", "messages": [{"role": "user", "content": "x"}]}
REFUSED = [
    ("vllm", "err_unknown_model", {"model": "nope"}),
    ("vllm", "err_max_tokens_0", {"max_tokens": 0}),
    ("vllm", "err_max_tokens_huge", {"max_tokens": 999_999}),
    ("vllm", "err_stream_options_without_stream", {"stream_options": {}}),
    ("vllm", "err_bad_temperature", {"temperature": -3.0}),
    ("vllm", "err_empty_messages", {"messages": []}),
    ("sglang", "err_bad_temperature", {"temperature": -3.0}),
    ("sglang", "err_empty_messages", {"messages": []}),
]


def refusal(engine, limit, **fields):
    ask = read_chat(json.dumps({**CHAT, **fields}).encode())
    with pytest.raises(Refusal) as refused:
        DIALECTS[engine].check(ask, Limits("tiny-llama", limit))
    return refused.value


@pytest.mark.parametrize(("engine", "sample", "fields"), REFUSED)
def test_refusals_are_those_of_the_real_engine_word_for_word(engine, sample, fields):
    need_samples()
    status, _, body = recorded(f"{engine}/{sample}.txt")
    refused = refusal(engine, 2048, **fields)
    assert refused.status == status
    assert DIALECTS[engine].envelope(refused).decode() == body


def test_a_full_queue_is_a_503_and_in_an_sglang_stream_an_event():
    need_samples()
    for engine, sample in [("vllm", "err_queue_full_503"), ("sglang", "err_queue_full")]:
        status, _, body = recorded(f"{engine}/{sample}.txt")
        busy = DIALECTS[engine].busy()
        assert busy.status == status == 503
        assert DIALECTS[engine].envelope(busy).decode() == body
    _, _, stream_body = recorded("sglang/err_queue_full_stream.txt")
    in_band = DIALECTS["sglang"].in_band(DIALECTS["sglang"].busy()).decode()
    assert [json.loads(e) for e in events(in_band)[:-1]] == [
        json.loads(e) for e in events(stream_body)[:-1]
    ]
    assert DIALECTS["sglang"].busy_in_band
    assert not DIALECTS["vllm"].busy_in_band


def test_a_dead_vllm_says_so_inside_the_stream_and_a_dead_sglang_says_nothing():
    need_samples()
    _, _, body = recorded("vllm_engine_dead/stream_enginecore_killed.txt")
    dead = DIALECTS["vllm"].dead()
    ours = DIALECTS["vllm"].in_band(dead).decode()
    assert [json.loads(e) for e in events(ours)[:-1]] == [json.loads(events(body)[-2])]
    assert events(ours)[-1] == events(body)[-1] == "[DONE]"
    assert DIALECTS["sglang"].dead() is None


@engines
def test_bodies_that_do_not_parse_get_the_envelope_of_the_real_engine(engine):
    need_samples()
    for sample in ("err_bad_json", "err_missing_messages", "err_empty_body", "err_bad_type"):
        status, _, body = recorded(f"{engine}/{sample}.txt")
        refused = DIALECTS[engine].invalid(InvalidBody("why", "body.messages"))
        real = json.loads(body)
        ours = json.loads(DIALECTS[engine].envelope(refused))
        assert refused.status == status == 400
        assert skeleton(ours) == skeleton(real)
        assert "1 validation error:" in refused.message


@pytest.mark.parametrize("engine", ["vllm", "sglang"])
def test_a_prompt_and_its_answer_must_fit_the_context(engine):
    prompt = "x" * 4000  # 1000 tokens and the template's few
    messages = [{"role": "user", "content": prompt}]
    tokens = read_chat(json.dumps(CHAT | {"messages": messages}).encode()).prompt_tokens
    dialect = DIALECTS[engine]

    def check(limit, **fields):
        body = json.dumps(CHAT | {"messages": messages} | fields)
        dialect.check(read_chat(body.encode()), Limits("tiny-llama", limit))

    check(tokens + 1)
    check(tokens + 50, max_tokens=50)
    assert str(tokens - 1) in refusal(engine, tokens - 1, messages=messages).message
    too_long = refusal(engine, tokens + 49, messages=messages, max_tokens=50)
    assert too_long.status == 400
    assert f"maximum context length is {tokens + 49} tokens" in too_long.message or (
        f"maximum context length of {tokens + 49} tokens" in too_long.message
    )


def test_sglang_takes_any_model_and_vllm_only_its_own():
    ask = read_completion(b'{"model":"nope","prompt":"x"}')
    DIALECTS["sglang"].check(ask, Limits("llama", 100))
    with pytest.raises(Refusal, match="does not exist"):
        DIALECTS["vllm"].check(ask, Limits("llama", 100))


def test_response_ids_carry_the_clients_id_where_the_engine_does_so():
    ask = read_chat(json.dumps(CHAT | {"rid": "r-7"}).encode())
    rng = Random(0)
    assert DIALECTS["vllm"].response_id(ask, "my-req-123", rng) == "chatcmpl-my-req-123"
    assert DIALECTS["sglang"].response_id(ask, "my-req-123", rng) == "r-7"
    plain = read_completion(b'{"prompt":"x"}')
    assert DIALECTS["vllm"].response_id(plain, "", rng).startswith("cmpl-")
    assert len(DIALECTS["sglang"].response_id(plain, "my-req-123", rng)) == 32
