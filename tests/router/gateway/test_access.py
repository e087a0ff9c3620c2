"""Keys with rights, limits and budgets, as a client meets them."""

from __future__ import annotations

import asyncio
from hashlib import sha256
from typing import Any

import openai
import pytest

from router.config.load import load_config
from router.domain.errors import ConfigError
from router.gateway.access.build import build_gate
from router.gateway.access.gate import Gate
from router.gateway.access.grant import Grant
from router.gateway.access.ledger import Ledger
from router.gateway.access.meter import Meter
from tests.fakes import ask, outcome
from tests.router.gateway.conftest import StartEngine, StartGateway
from tests.router.gateway.fakes import MODEL, REQUEST, chat, eventually, fleet, stream

NOON = 1_700_000_000.0 - 1_700_000_000.0 % 86_400 + 12 * 3600


def key(name: str, secret: str | None = None, **rights: Any) -> dict[str, Any]:
    digest = sha256((secret or name).encode()).hexdigest()
    return {"name": name, "hash": f"sha256:{digest}", **rights}


def access(*keys: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"keys": list(keys), **more}


def bearer(name: str) -> dict[str, str]:
    return {"authorization": f"Bearer {name}"}


# Rights


async def test_a_key_opens_its_models_and_no_others(
    engine: StartEngine, gateway: StartGateway
) -> None:
    gate = await gateway(
        await engine(chat()), access=access(key("a", models=["gpt-4"])), aliases={"gpt-4": MODEL}
    )
    refused = await gate.post(**bearer("a"))
    assert refused.status_code == 403
    assert refused.json()["error"] == {
        "message": f"This key may not use the model '{MODEL}'. It may use: gpt-4.",
        "type": "permission_error",
        "param": "model",
        "code": "model_not_allowed",
    }
    allowed = await gate.post(body=REQUEST.replace(MODEL.encode(), b"gpt-4"), **bearer("a"))
    assert allowed.status_code == 200


async def test_a_model_brings_no_adapter_with_it(
    engine: StartEngine, gateway: StartGateway
) -> None:
    """Adapters are asked for like models, and granted like them: they may be somebody's own."""
    gate = await gateway(
        await engine(chat()),
        access=access(key("base", models=[MODEL]), key("tuned", models=["acme-lora"])),
        adapters={"acme-lora": MODEL},
        aliases={"acme": "acme-lora"},
    )
    for name, may in {"base": [MODEL], "tuned": ["acme", "acme-lora"]}.items():
        listed = (await gate.get("/v1/models", **bearer(name))).json()["data"]
        assert [entry["id"] for entry in listed] == may
        for model in (MODEL, "acme", "acme-lora"):
            body = REQUEST.replace(MODEL.encode(), model.encode())
            answered = await gate.post(body=body, **bearer(name))
            assert answered.status_code == (200 if model in may else 403), (name, model)


async def test_a_key_is_shown_the_models_that_it_may_use(
    engine: StartEngine, gateway: StartGateway
) -> None:
    gate = await gateway(
        await engine(chat()),
        access=access(key("one", models=["gpt-4"]), key("root", models=[MODEL]), key("all")),
        aliases={"gpt-4": MODEL, "other": MODEL},
    )

    async def listed(name: str) -> list[str]:
        answer = await gate.get("/v1/models", **bearer(name))
        return [entry["id"] for entry in answer.json()["data"]]

    assert await listed("one") == ["gpt-4"]
    assert await listed("root") == await listed("all") == ["gpt-4", MODEL, "other"]
    assert (await gate.get("/v1/models/gpt-4", **bearer("one"))).status_code == 200
    assert (await gate.get("/v1/models/other", **bearer("one"))).status_code == 404


async def test_a_key_brings_its_tenant_and_its_class(
    engine: StartEngine, gateway: StartGateway
) -> None:
    rights = {"classes": ["bulk", "throughput"], "default_class": "bulk"}
    gate = await gateway(await engine(chat()), access=access(key("team", **rights)))
    seen = []
    core = gate.relay.engine.dispatcher
    dispatch = core.dispatch
    core.dispatch = lambda request, now, **how: (
        seen.append(request),
        dispatch(request, now, **how),
    )[1]  # type: ignore[method-assign]
    assert (await gate.post(x_tenant_id="somebody-else", **bearer("team"))).status_code == 200
    refused = await gate.post(x_motley_slo="interactive", **bearer("team"))
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "class_not_allowed")
    assert [(r.tenant, r.slo_class) for r in seen] == [("team", "bulk")]


# Limits


async def test_a_rate_limit_says_when_to_come_back(
    engine: StartEngine, gateway: StartGateway
) -> None:
    backend = await engine(chat())
    gate = await gateway(backend, access=access(key("a", requests_per_minute=2)))
    first = await gate.post(**bearer("a"))
    assert first.headers["x-ratelimit-limit-requests"] == "2"
    assert first.headers["x-ratelimit-remaining-requests"] == "1"
    assert first.headers["x-ratelimit-reset-requests"].endswith("s")
    await gate.post(**bearer("a"))
    over = await gate.post(**bearer("a"))
    assert over.status_code == 429
    assert over.json()["error"]["code"] == "rate_limit_exceeded"
    assert over.json()["error"]["type"] == "rate_limit_error"
    assert over.headers["x-ratelimit-remaining-requests"] == "0"
    assert 1 <= int(over.headers["retry-after"]) <= 120
    assert len(backend.received) == 2
    client = openai.OpenAI(base_url=f"{gate.url}/v1", api_key="a", max_retries=0)

    def official_client() -> None:
        client.chat.completions.create(model=MODEL, messages=[])

    with pytest.raises(openai.RateLimitError):
        await asyncio.to_thread(official_client)


async def test_concurrency_is_given_back_however_a_request_ends(
    engine: StartEngine, gateway: StartGateway
) -> None:
    gate = await gateway(
        await engine(stream(["a"] * 1000, gap_s=0.01)), access=access(key("a", max_concurrent=1))
    )
    reader, writer = await gate.connect()
    head = "POST /v1/chat/completions HTTP/1.1\r\nhost: g\r\nauthorization: Bearer a\r\n"
    writer.write(head.encode() + b"content-length: %d\r\n\r\n" % len(REQUEST) + REQUEST)
    await reader.readuntil(b"data: ")
    busy = await gate.post(**bearer("a"))
    assert (busy.status_code, busy.headers["retry-after"]) == (429, "1")
    assert busy.json()["error"]["code"] == "concurrency_limit_exceeded"
    writer.close()
    await eventually(lambda: gate.relay.engine.live == 0)
    assert gate.relay.engine.gate.active() == {}


def gate_with(clock: list[float], **rights: Any) -> Gate:
    prices = {MODEL: {"input_usd_per_mtok": 1.0, "output_usd_per_mtok": 10.0}}
    config = load_config(fleet("http://h:1", access=access(key("a", **rights), prices=prices)))
    return build_gate(config, lambda: clock[0])


def spend(gate: Gate, clock: list[float], name: str, *, prompt: int, output: int) -> str:
    """One request from its beginning to its end; returns why it was refused, if it was."""
    caller = gate.admit({b"x-api-key": b"a"})
    request = ask(name, prompt_tokens=prompt, max_tokens=output)
    refusal = gate.enter(caller, MODEL, MODEL, request)  # type: ignore[arg-type]
    if refusal is not None:
        return f"{refusal.code} {refusal.retry_after_s:g}"
    gate.observe(outcome(request_id=name, prompt_tokens=prompt, output_tokens=output))
    gate.left(name)
    return ""


def test_tokens_are_charged_as_used_and_slide_out_of_the_minute() -> None:
    clock = [NOON]
    gate = gate_with(clock, tokens_per_minute=1000)
    assert spend(gate, clock, "1", prompt=500, output=100) == ""
    assert spend(gate, clock, "2", prompt=300, output=200) == "rate_limit_exceeded 70"
    clock[0] += 69.9
    assert spend(gate, clock, "3", prompt=300, output=200).startswith("rate_limit_exceeded")
    clock[0] += 0.2
    assert spend(gate, clock, "4", prompt=300, output=200) == ""


def test_a_request_that_was_never_answered_costs_no_tokens() -> None:
    clock = [NOON]
    gate = gate_with(clock, tokens_per_minute=1000)
    caller = gate.admit({b"x-api-key": b"a"})
    assert gate.enter(caller, MODEL, MODEL, ask("1", max_tokens=0)) is None  # type: ignore[arg-type]
    gate.observe(outcome(request_id="1", status="failed", output_tokens=0))
    gate.left("1")
    assert spend(gate, clock, "2", prompt=900, output=100) == ""


def test_a_budget_lasts_until_midnight_utc() -> None:
    clock = [NOON]
    gate = gate_with(clock, usd_per_day=0.01)
    assert spend(gate, clock, "1", prompt=1000, output=1000) == ""
    assert spend(gate, clock, "2", prompt=1, output=1) == "insufficient_quota 43200"
    clock[0] += 43_200
    assert spend(gate, clock, "3", prompt=1, output=1) == ""
    gate.tidy()
    assert len(gate.ledger) == 1


def test_a_request_larger_than_the_whole_limit_gets_in_when_nothing_else_is_used() -> None:
    meter = Meter(Grant("a", tokens_per_minute=100), Ledger())
    assert meter.enter(5000, NOON) is None
    assert meter.enter(1, NOON) is not None


def test_a_minute_is_sixty_seconds_wherever_it_begins() -> None:
    """No two minutes' worth around the turn of a minute."""
    meter = Meter(Grant("a", requests_per_minute=60), Ledger())
    for _ in range(60):
        assert meter.enter(1, NOON + 59.0) is None
    refusal = meter.enter(1, NOON + 60.5)
    assert refusal is not None
    assert refusal.retry_after_s == 1.0
    assert meter.enter(1, NOON + 61.1) is None


# Mistakes


@pytest.mark.parametrize(
    ("section", "says"),
    [
        ({"keys": [{"name": "a", "hash": "sk-plain"}]}, "64 hexadecimal digits"),
        ({"keys": [key("a"), key("a", "other")]}, "two API keys are named 'a'"),
        ({"keys": [key("a"), key("b", "a")]}, "given twice"),
        ({"keys": [key("a", classes=["bulk"], default_class="x")]}, "not among classes"),
        ({"keys": [key("a", requests_per_minute=0)]}, "greater than 0"),
        ({"keys_file": "/no/such/keys.json"}, "cannot read the keys file"),
    ],
)
def test_mistakes_are_named(section: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        build_gate(load_config(fleet("http://h:1", access=section)), lambda: 0.0)


def test_an_expired_key_is_no_key() -> None:
    config = load_config(fleet("http://h:1", access=access(key("a", expires_unix_s=100))))
    clock = [99.0]
    gate = build_gate(config, lambda: clock[0])
    assert not hasattr(gate.admit({b"x-api-key": b"a"}), "status")
    clock[0] = 100.0
    assert hasattr(gate.admit({b"x-api-key": b"a"}), "status")
