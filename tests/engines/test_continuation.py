"""Real engines that die in mid-answer, and real engines that go on with it."""

from __future__ import annotations

import os
import signal

import openai
import pytest

from tests.engines.conftest import need
from tests.engines.fleet import FLEET, HELLO, MODEL
from tests.engines.servers import serving
from tests.engines.test_deaths import _descendant
from tests.router.gateway.fakes import eventually

pytestmark = [pytest.mark.engines, pytest.mark.timeout(2_400)]

TOKENS = 1_500
RELIABILITY = {
    "continuation": {"enabled": True},
    "idle_timeout_s": 10.0,
    "health_interval_s": 0.5,
}


@pytest.mark.parametrize(
    ("doomed", "process", "heir"),
    [
        ("fast", ("VLLM::EngineCore", "VLLM::EngineCor"), "sglang"),
        ("sglang", ("sglang::scheduler",), "fast"),
    ],
)
async def test_another_engine_goes_on_and_the_sdk_sees_one_stream(
    gateway, models, doomed, process, heir
):
    need("vllm", "sglang")
    with serving(models, FLEET[doomed], FLEET[heir]) as servers:  # two at once start soon enough
        backends = dict(zip((doomed, heir), servers, strict=True))
        await one_dies(await gateway(backends, reliability=RELIABILITY), backends, doomed, process)


async def one_dies(gate, servers, doomed, process):
    """Ask both, kill one in mid-answer; its answer must be whole all the same."""
    victim = _descendant(servers[doomed].process.pid, *process)
    async with openai.AsyncOpenAI(base_url=f"{gate.url}/v1", api_key="k", max_retries=0) as client:

        async def ask():
            return await client.chat.completions.with_raw_response.create(
                model=MODEL,
                messages=HELLO,
                max_tokens=TOKENS,
                stream=True,
                stream_options={"include_usage": True},
                extra_body={"ignore_eos": True},
                timeout=120.0,
            )

        answers = [await ask(), await ask()]
        answer = next(a for a in answers if a.headers["x-motley-backend"] == doomed)
        parts = []
        async for part in answer.parse():
            parts.append(part)
            if len(parts) == 20:
                os.kill(victim, signal.SIGKILL)
        for other in answers:
            if other is not answer:
                async for _ in other.parse():
                    pass
    await eventually(lambda: gate.relay.engine.live == 0)
    assert gate.books["completed"] == gate.books["arrived"] == 2
    assert len({(part.id, part.model, part.created) for part in parts}) == 1
    choices = [choice for part in parts for choice in part.choices]
    assert [c.delta.role for c in choices if c.delta.role] == ["assistant"]
    assert [c.finish_reason for c in choices if c.finish_reason] == ["length"]
    (usage,) = [part.usage for part in parts if part.usage]
    # Engines send no event for half a character, so that what was received counts a little low.
    assert TOKENS <= usage.completion_tokens <= TOKENS * 1.1
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    metrics = (await gate.get("/metrics")).text
    assert 'motley_continuations_total{outcome="completed"} 1.0' in metrics
