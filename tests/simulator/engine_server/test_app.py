"""One emulated engine over ASGI, in a loop whose time stands still."""

import json
from itertools import pairwise

import pytest

from router.perf.build import iteration_model
from simulator.engine_server.tokens import words
from tests.simulator.engine_server.samples import events
from tests.simulator.engine_server.still_loop import Bench, settle

CHAT, COMPLETION = "/v1/chat/completions", "/v1/completions"
engines = pytest.mark.parametrize("engine", ["vllm", "sglang"])


def chat(content="hello", **fields):
    messages = [{"role": "user", "content": content}]
    return json.dumps({"model": "llama-3.1-8b", "messages": messages, **fields}).encode()


def said(body):
    """What a chat stream said."""
    chunks = [json.loads(data) for data in events(body) if data != "[DONE]"]
    choices = [choice for chunk in chunks for choice in chunk.get("choices", [])]
    return "".join(choice["delta"].get("content") or "" for choice in choices)


@engines
async def test_a_stream_brings_every_token_in_order(engine):
    bench = Bench(engine)
    answer = await bench.ask("POST", CHAT, chat(stream=True, max_tokens=40, ignore_eos=True))
    assert answer.status == 200
    assert answer.headers[b"content-type"] == b"text/event-stream; charset=utf-8"
    assert said(answer.body) == words(0, 40)
    assert events(answer.body)[-1] == "[DONE]"
    assert answer.complete


@engines
async def test_tokens_arrive_when_the_performance_model_says(engine):
    bench = Bench(engine)
    truth = iteration_model(bench.spec)
    begun = bench.loop.time()
    body = chat("x" * 3950, stream=True, max_tokens=5, ignore_eos=True)
    answer = await bench.ask("POST", CHAT, body)
    prompt = -(-len(b"<|user|>" + b"x" * 3950 + b"<|end|><|assistant|>") // 4)
    sent = [at - begun for at, m in answer.sent[1:] if m.get("body", b"").startswith(b"data: {")]
    ttft = truth.iteration_s(prompt, 0, 0.0, prompt * prompt / 2)
    assert sent[0] == pytest.approx(ttft, rel=1e-6)
    gaps = [later - earlier for earlier, later in pairwise(sent)]
    for i, gap in enumerate(gaps):
        # Within one token of context: engines differ in when they count the new one.
        assert gap == pytest.approx(truth.iteration_s(0, 1, prompt + i + 1), rel=1e-3)


@engines
async def test_the_head_of_a_stream_is_sent_before_its_first_token(engine):
    bench = Bench(engine)
    begun = bench.loop.time()
    answer = await bench.ask("POST", CHAT, chat(stream=True, max_tokens=2))
    assert answer.sent[0][0] == begun < answer.sent[1][0]


@engines
async def test_a_whole_answer_counts_its_tokens(engine):
    bench = Bench(engine)
    answer = await bench.ask("POST", CHAT, chat(max_tokens=9, ignore_eos=True))
    body = json.loads(answer.body)
    assert body["choices"][0]["message"]["content"] == words(0, 9)
    assert body["choices"][0]["finish_reason"] == "length"
    assert body["created"] == 1_795_209_026
    prompt = -(-len(b"<|user|>hello<|end|><|assistant|>") // 4)
    usage = body["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (prompt, 9)
    assert usage["total_tokens"] == prompt + 9
    assert usage["prompt_tokens_details"] == {"cached_tokens": 0}


@engines
async def test_the_same_prompt_gets_the_same_answer_and_stops_by_itself(engine):
    bodies = []
    for _ in range(2):
        bench = Bench(engine)  # another process, another card: no matter
        bodies.append(json.loads((await bench.ask("POST", CHAT, chat())).body))
    first, second = (body["choices"][0] for body in bodies)
    assert first["message"] == second["message"]
    assert first["finish_reason"] == "stop"


@engines
async def test_the_next_turn_of_a_conversation_is_found_in_the_prefix_cache(engine):
    bench = Bench(engine)
    turns = [{"role": "user", "content": "q" * 6400}]
    body = json.dumps({"messages": turns, "max_tokens": 200, "ignore_eos": True}).encode()
    first = json.loads((await bench.ask("POST", CHAT, body)).body)
    assert first["usage"]["prompt_tokens_details"] == {"cached_tokens": 0}
    turns += [first["choices"][0]["message"], {"role": "user", "content": "and?"}]
    body = json.dumps({"messages": turns, "max_tokens": 2}).encode()
    second = json.loads((await bench.ask("POST", CHAT, body)).body)
    cached = second["usage"]["prompt_tokens_details"]["cached_tokens"]
    # The question whole, and of the answer all but what its blocks do not fill.
    assert first["usage"]["prompt_tokens"] < cached <= second["usage"]["prompt_tokens"]


@engines
async def test_usage_comes_last_when_asked_for(engine):
    bench = Bench(engine)
    options = {"include_usage": True}
    body = chat(stream=True, stream_options=options, max_tokens=3, ignore_eos=True)
    answer = await bench.ask("POST", CHAT, body)
    last = json.loads(events(answer.body)[-2])
    assert last["choices"] == []
    assert last["usage"]["completion_tokens"] == 3


@engines
@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_leaves_takes_its_request_along_at_once(engine, stream):
    bench = Bench(engine)
    exchange = bench.open("POST", CHAT, chat(stream=stream, max_tokens=1000, ignore_eos=True))
    await settle()
    bench.loop.move(0.05)
    await settle()
    assert bench.app.driver.in_engine == 1
    exchange.leave()
    await settle()  # no time passes
    assert bench.app.driver.in_engine == 0
    assert exchange.task.done()
    bench.loop.move(1.0)
    assert bench.app.driver.signals().running == 0


@engines
async def test_limits_of_the_client_and_of_the_context(engine):
    bench = Bench(engine, max_model_len=100)

    async def usage(**fields):
        answer = json.loads((await bench.ask("POST", CHAT, chat(**fields))).body)
        return answer["usage"]["completion_tokens"], answer["choices"][0]["finish_reason"]

    prompt = -(-len(b"<|user|>hello<|end|><|assistant|>") // 4)
    assert await usage(ignore_eos=True) == (100 - prompt, "length")
    assert await usage(max_tokens=1) == (1, "length")
    assert await usage(max_completion_tokens=2) == (2, "length")
    assert await usage(min_tokens=90) == (90, "stop")


async def test_sglang_refuses_less_than_no_tokens():
    refused = await Bench("sglang").ask("POST", CHAT, chat(max_tokens=-1))
    assert refused.status == 400
    assert "max_new_tokens must be at least 0, got -1." in refused.body


async def test_sglang_answers_nothing_to_max_tokens_0():
    answer = await Bench("sglang").ask("POST", CHAT, chat(max_tokens=0))
    body = json.loads(answer.body)
    assert body["choices"][0]["message"]["content"] == ""
    assert body["usage"]["completion_tokens"] == 0


@engines
async def test_legacy_completions(engine):
    bench = Bench(engine)
    body = json.loads((await bench.ask("POST", COMPLETION, b'{"prompt":"hello"}')).body)
    assert body["object"] == "text_completion"
    assert body["choices"][0]["text"] == words(0, 16)
    assert body["usage"]["prompt_tokens"] == 2


async def test_unknown_models():
    body = chat(model="nope", max_tokens=1)
    refused = await Bench("vllm").ask("POST", CHAT, body)
    assert refused.status == 404
    assert json.loads(refused.body)["error"]["type"] == "NotFoundError"
    taken = await Bench("sglang").ask("POST", CHAT, body)
    assert json.loads(taken.body)["model"] == "nope"


@engines
@pytest.mark.parametrize("body", [b"", b"{", b"{}", chat(temperature="hot")])
async def test_bodies_that_do_not_parse_are_a_400(engine, body):
    answer = await Bench(engine).ask("POST", CHAT, body, content_type="application/json")
    assert answer.status == 400
    assert "1 validation error" in answer.body


@engines
async def test_only_json_is_taken(engine):
    answer = await Bench(engine).ask("POST", CHAT, chat(), content_type="text/plain")
    assert answer.status == 400
    assert "Unsupported Media Type" in answer.body


@engines
async def test_unknown_paths_and_methods_are_fastapis(engine):
    bench = Bench(engine)
    missing = await bench.ask("POST", "/v1/embeddings")
    assert missing.status == 404
    assert "/v1/embeddings on this emulated engine" in json.loads(missing.body)["detail"]
    refused = await bench.ask("GET", CHAT)
    assert (refused.status, refused.headers[b"allow"]) == (405, b"POST")
    assert (await bench.ask("POST", "/v1/models")).status == 405


async def test_a_full_queue():
    for engine, status in [("vllm", 503), ("sglang", 200)]:
        bench = Bench(engine, max_queued=0)
        refused = await bench.ask("POST", CHAT, chat(stream=True))
        assert refused.status == status
        assert refused.complete
        assert bench.app.driver.stats.rejected == 1
        if engine == "sglang":
            assert json.loads(events(refused.body)[0])["error"]["code"] == 503
        whole = await bench.ask("POST", CHAT, chat())
        assert whole.status == 503


async def test_the_clients_request_id_is_in_vllms_answer_only():
    body = chat(max_tokens=1)
    answer = await Bench("vllm").ask("POST", CHAT, body, x_request_id="r-1")
    assert json.loads(answer.body)["id"] == "chatcmpl-r-1"
    answer = await Bench("sglang").ask("POST", CHAT, body, x_request_id="r-1")
    assert "r-1" not in answer.body


@engines
async def test_tokenize_counts_as_completions_do(engine):
    bench = Bench(engine)
    told = json.loads((await bench.ask("POST", "/tokenize", chat())).body)
    used = json.loads((await bench.ask("POST", CHAT, chat(max_tokens=1))).body)["usage"]
    assert told["count"] == len(told["tokens"]) == used["prompt_tokens"]
    back = await bench.ask("POST", "/detokenize", json.dumps({"tokens": told["tokens"]}).encode())
    assert "<|user|>hello<|end|><|assistant|>" in back.body
