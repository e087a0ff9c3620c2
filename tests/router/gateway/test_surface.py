"""Every endpoint an engine may have: names, forms and the event formats of other vendors."""

from __future__ import annotations

import json

import pytest

from router.gateway.door import HOT_PATHS
from tests.router.gateway.conftest import StartEngine, StartGateway
from tests.router.gateway.fakes import MODEL, REQUEST, Gateway, answer, chat, events

SERVED = "meta-llama/Llama-3.1-8B-Instruct"


def served(url: str, **more: object) -> dict[str, object]:
    entry = {"gpu": "a100-80", "model": MODEL, "name": "e0", "url": url, "served_model": SERVED}
    return {"backends": [entry], **more}


async def test_an_engine_hears_its_own_name_and_every_other_byte_untouched(
    engine: StartEngine, gateway: StartGateway
) -> None:
    backend = await engine(chat())
    gate = await gateway(**served(backend.url))
    text = b'"\\u00e9 \\"model\\": 1"'
    body = b'{ "messages":[{"role":"user","content":' + text + b'}], "model" : "%b" ,"x":1.0}'
    asked = body % MODEL.encode()
    assert (await gate.post(body=asked)).status_code == 200
    assert backend.received[0].body == body % SERVED.encode()


async def test_its_own_name_may_be_an_alias_and_passes_as_it_is(
    engine: StartEngine, gateway: StartGateway
) -> None:
    backend = await engine(chat())
    gate = await gateway(**served(backend.url, aliases={SERVED: MODEL}))
    body = REQUEST.replace(MODEL.encode(), SERVED.encode())
    assert (await gate.post(body=body)).status_code == 200
    assert backend.received[0].body == body
    names = [model["id"] for model in (await gate.get("/v1/models")).json()["data"]]
    assert names == [MODEL, SERVED]


async def test_an_adapter_goes_to_the_engines_of_its_model_under_its_own_name(
    engine: StartEngine, gateway: StartGateway
) -> None:
    backend = await engine(chat())
    gate = await gateway(
        **served(backend.url, adapters={"sql-lora": MODEL}, aliases={"sql": "sql-lora"})
    )
    for asked in (b"sql-lora", b"sql"):
        assert (await gate.post(body=REQUEST.replace(MODEL.encode(), asked))).status_code == 200
    assert [json.loads(got.body)["model"] for got in backend.received] == ["sql-lora"] * 2
    models = {entry["id"]: entry for entry in (await gate.get("/v1/models")).json()["data"]}
    assert (models["sql-lora"]["root"], models["sql-lora"]["parent"]) == (MODEL, MODEL)


async def test_two_models_in_one_fleet(engine: StartEngine, gateway: StartGateway) -> None:
    small, large = await engine(chat("small")), await engine(chat("large"))
    gate = await gateway(
        backends=[
            {"gpu": "a100-80", "model": MODEL, "url": small.url},
            {"gpu": "a100-80", "model": "llama-3.1-70b", "tensor_parallel": 4, "url": large.url},
        ]
    )
    answered = await gate.post(body=REQUEST.replace(MODEL.encode(), b"llama-3.1-70b"))
    assert answered.json()["choices"][0]["message"]["content"] == "large"
    assert small.received == []


AUDIO = bytes(range(256)) * 40
FORM = (
    b'--b0und\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n'
    b"Content-Type: audio/wav\r\n\r\n" + AUDIO + b"\r\n--b0und\r\n"
    b'Content-Disposition: form-data; name="model"\r\n\r\n%b\r\n--b0und--\r\n'
)


def form(model: str) -> bytes:
    return FORM.replace(b"%b", model.encode())


async def test_an_upload_passes_byte_for_byte_but_for_the_name(
    engine: StartEngine, gateway: StartGateway
) -> None:
    backend = await engine(answer(200, {"text": "hello"}))
    gate = await gateway(**served(backend.url))
    answered = await gate.post(
        "/v1/audio/transcriptions", form(MODEL), content_type="multipart/form-data; boundary=b0und"
    )
    assert answered.json() == {"text": "hello"}
    assert backend.received[0].body == form(SERVED)


@pytest.mark.parametrize(
    ("body", "content_type", "code"),
    [
        (b"--b\r\n\r\n--b--", "multipart/form-data; boundary=b", "missing_model"),
        (b"", "multipart/form-data; boundary=b", "missing_model"),
        (form(MODEL), "multipart/form-data", "invalid_form"),
        (form(MODEL)[:-60], "multipart/form-data; boundary=b0und", "missing_model"),
    ],
)
async def test_a_form_that_cannot_be_routed(
    gateway: StartGateway, body: bytes, content_type: str, code: str
) -> None:
    gate = await gateway("http://127.0.0.1:9")
    answered = await gate.post("/v1/audio/transcriptions", body, content_type=content_type)
    assert (answered.status_code, answered.json()["error"]["code"]) == (400, code)


def field(disposition: bytes, value: bytes, *headers: bytes) -> bytes:
    lines = [b"Content-Disposition: form-data; " + disposition, *headers]
    return b"--b\r\n" + b"\r\n".join(lines) + b"\r\n\r\n" + value + b"\r\n"


MINE = field(b'name="model"', MODEL.encode())
ANOTHER = field(b'name="model"', b"not-mine")
OTHER_BOUNDARY = ANOTHER.replace(b"--b", b"--c") + b"--c--\r\n"


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (MINE + ANOTHER, "boundary=b"),
        (MINE + field(b"name=model", b"not-mine"), "boundary=b"),
        (MINE + field(b"name*=utf-8''model", b"not-mine"), "boundary=b"),
        (MINE + field(b'name="mo\\del"', b"not-mine"), "boundary=b"),
        (MINE + field(b'filename="a;b\\"c"; name="model"', b"not-mine"), "boundary=b"),
        (MINE + field(b'filename="x"\r\n\t; name="model"', b"not-mine"), "boundary=b"),
        (field(b'name="x"; name="model"', MODEL.encode()), "boundary=b"),
        (field(b'name="model"', b"bm90", b"Content-Transfer-Encoding: base64"), "boundary=b"),
        (field(b'name="model"', b"x", b'content-disposition: form-data; name="a"'), "boundary=b"),
        (field(b'name="model"', b"x", b"X-Long: " + b" " * 9000), "boundary=b"),
        (MINE + b"".join(field(b'name="x"', b"") for _ in range(100)) + ANOTHER, "boundary=b"),
        (MINE[:-2] + b"\r\n--b\n" + ANOTHER[5:].replace(b"\r\n", b"\n"), "boundary=b"),
        (MINE + b"--b--" + OTHER_BOUNDARY, "xboundary=b; boundary=c"),
        (MINE + b"--b--" + OTHER_BOUNDARY, "boundary=b; boundary=c"),
        (b"preamble" + MINE, "boundary=b"),
    ],
)
async def test_a_form_that_can_be_read_in_two_ways_is_refused(
    engine: StartEngine, gateway: StartGateway, body: bytes, content_type: str
) -> None:
    """Or a key could ask for one model here and get another one from the engine."""
    backend = await engine(answer(200, {"text": "hello"}))
    gate = await gateway(backend)
    kind = f"multipart/form-data; {content_type}"
    answered = await gate.post("/v1/audio/transcriptions", body + b"--b--\r\n", content_type=kind)
    assert answered.status_code == 400, answered.text
    assert answered.json()["error"]["code"] in ("invalid_form", "missing_model")
    assert not backend.received


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (MINE + field(b'name="file"; filename="a \\"b\\".wav"', AUDIO), "boundary=b"),
        (
            field(b'name="file"; filename="a.wav"', AUDIO, b"Content-Type: a/b") + MINE,
            'Boundary="b"',
        ),
        (field(b"name=model", MODEL.encode()), "charset=utf-8; boundary=b;"),
        (b"\r\n" + MINE + field(b'name="g[]"', b"word") * 2, "boundary=b"),
        (field(b'name="model"', MODEL.encode(), b"Content-Transfer-Encoding: 8bit"), "boundary=b"),
    ],
)
async def test_forms_as_clients_write_them(
    engine: StartEngine, gateway: StartGateway, body: bytes, content_type: str
) -> None:
    backend = await engine(answer(200, {"text": "hello"}))
    gate = await gateway(backend)
    kind, body = f"multipart/form-data; {content_type}", body + b"--b--\r\n"
    answered = await gate.post("/v1/audio/transcriptions", body, content_type=kind)
    assert (answered.status_code, backend.received[0].body) == (200, body)


@pytest.mark.parametrize(
    "path",
    ["embeddings", "rerank", "score", "classify", "audio/speech", "messages/count_tokens"],
)
async def test_what_else_engines_offer_passes(
    engine: StartEngine, gateway: StartGateway, path: str
) -> None:
    backend = await engine(answer(200, b'{"whatever": [1.0]}'))
    gate = await gateway(backend)
    body = b'{"model":"%b","input":["a"],"unknown":{"x":1}}' % MODEL.encode()
    answered = await gate.post(f"/v1/{path}", body)
    assert answered.content == b'{"whatever": [1.0]}'
    assert backend.received[0].head.split()[1] == f"/v1/{path}"
    assert backend.received[0].body == body


def named(kind: str, **fields: object) -> bytes:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **fields})}\n\n".encode()


MESSAGES = (
    named("message_start", message={"usage": {"input_tokens": 25, "output_tokens": 0}}),
    named("ping"),
    named("content_block_start", index=0),
    named("content_block_delta", delta={"type": "text_delta", "text": "Hel"}),
    named("content_block_delta", delta={"type": "text_delta", "text": "lo"}),
    named("content_block_stop", index=0),
    named("message_delta", delta={"stop_reason": "end_turn"}, usage={"output_tokens": 15}),
    named("message_stop"),
)
RESPONSES = (
    named("response.created", response={"usage": None}),
    named("response.in_progress"),
    named("response.output_text.delta", delta="Hel"),
    named("response.output_text.delta", delta="lo"),
    named(
        "response.completed",
        response={
            "usage": {
                "input_tokens": 25,
                "input_tokens_details": {"cached_tokens": 16},
                "output_tokens": 15,
                "output_tokens_details": {"reasoning_tokens": 0},
            }
        },
    ),
)


@pytest.mark.parametrize(
    ("path", "parts", "cached"),
    [("/v1/messages", MESSAGES, None), ("/v1/responses", RESPONSES, 16)],
    ids=["messages", "responses"],
)
async def test_other_event_formats_are_relayed_and_counted(
    engine: StartEngine,
    gateway: StartGateway,
    path: str,
    parts: tuple[bytes, ...],
    cached: int | None,
) -> None:
    backend = await engine(events(*parts))
    gate = await gateway(backend)
    outcomes = spy(gate)
    body = b'{"model":"%b","stream":true,"max_tokens":64,"input":"x"}' % MODEL.encode()
    answered = await gate.post(path, body)
    assert answered.content == b"".join(parts)
    (outcome,) = outcomes
    assert (outcome.prompt_tokens, outcome.output_tokens) == (25, 15)
    assert outcome.cached_tokens == cached
    # Two events came before the first token, 5 ms apart.
    assert outcome.first_token_s - outcome.dispatched_s > 0.009


def spy(gate: Gateway) -> list:  # type: ignore[type-arg]
    outcomes: list = []  # type: ignore[type-arg]
    dispatcher = gate.relay.engine.dispatcher
    spying = type("Spy", (), {"observe": lambda self, outcome: outcomes.append(outcome)})()
    dispatcher._observers = (*dispatcher._observers, spying)
    return outcomes


EVERYTHING = (
    b'{"model":"%b", "n": 2,"logprobs":true ,"top_logprobs":3,"stream_options":'
    b'{"include_usage":true},"tools":[{"type":"function","function":{"name":"f","parameters":{}}}],'
    b'"response_format":{"type":"json_schema","json_schema":{"name":"s","schema":{"type":"object"}}},'
    b'"messages":[{"role":"user","content":[{"type":"text","text":"\xc3\xa9\\u00e9"},'
    b'{"type":"image_url","image_url":{"url":"data:image/png;base64,iVBORw0KGgo="}}]}],'
    b'"prompt":"p","input":["a"],"a_field_of_tomorrow":{"x":1.50}}'
) % MODEL.encode()


@pytest.mark.parametrize("path", sorted(path.decode() for path in HOT_PATHS))
async def test_every_path_passes_every_field_untouched(
    engine: StartEngine, gateway: StartGateway, path: str
) -> None:
    backend = await engine(answer(200, b'{"as":"it is"}'))
    gate = await gateway(backend)
    answered = await gate.post(path, EVERYTHING, content_type="application/json")
    assert (answered.status_code, answered.content) == (200, b'{"as":"it is"}')
    (received,) = backend.received
    assert received.head == f"POST {path} HTTP/1.1"
    assert received.body == EVERYTHING


@pytest.mark.parametrize(
    "content_type",
    ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "", "a/b; c=\xff"],
)
async def test_a_wrong_content_type_is_answered_and_not_guessed_at(
    engine: StartEngine, gateway: StartGateway, content_type: str
) -> None:
    """JSON is JSON, whatever it calls itself: the engine judges the name; what is none is a 400."""
    backend = await engine(answer(415, {"error": {"message": "unsupported", "code": 415}}))
    gate = await gateway(backend)
    named = {"content-type": content_type.encode("latin-1")}
    async with gate.client() as client:
        wrong = await client.post("/v1/chat/completions", content=b"a=1&b=2", headers=named)
        right = await client.post("/v1/chat/completions", content=REQUEST, headers=named)
    assert wrong.status_code == 400
    assert set(wrong.json()["error"]) == {"message", "type", "param", "code"}
    if content_type.startswith("multipart"):
        assert right.status_code == 400, "it says that it is a form, and is none"
    else:
        assert (right.status_code, right.json()["error"]["message"]) == (415, "unsupported")
        assert backend.received[-1].headers.get("content-type", "") == content_type
