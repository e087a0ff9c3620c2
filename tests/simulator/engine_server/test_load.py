"""The load of a demo: what its profiles look like, and that it is the same under a seed."""

from __future__ import annotations

import asyncio
import json
from itertools import islice, takewhile
from random import Random

import pytest

from router.domain.errors import BadInputError, UnknownNameError
from simulator.engine_server.load import chat_body, run_load
from simulator.engine_server.plan import LoadPlan
from simulator.engine_server.profiles import PROFILES, RATES, Arrival, arrivals, parse

PLAN = LoadPlan("http://127.0.0.1:1", "m", 1.0)


def first(profile: str, seconds: float, seed: int = 0) -> list[Arrival]:
    _, rate_per_s = parse(profile)
    found = arrivals(profile, rate_per_s, seed)
    return list(takewhile(lambda one: one.at_s < seconds, found))


@pytest.mark.parametrize("profile", PROFILES)
def test_a_load_is_the_same_under_a_seed(profile: str):
    assert first(profile, 60.0) == first(profile, 60.0) != first(profile, 60.0, seed=1)
    times = [one.at_s for one in first(profile, 60.0)]
    assert times == sorted(times)


@pytest.mark.parametrize("profile", ["light", "steady"])
def test_the_even_ones_keep_their_rate(profile: str):
    found = first(profile, 500.0)
    assert len(found) / 500.0 == pytest.approx(RATES[profile], rel=0.1)
    sizes = sorted(one.prompt_tokens for one in found)
    assert sizes[-1] == 4000
    assert 500 < sizes[len(sizes) // 2] < 720  # the median of 600 tokens, give or take


def test_a_burst_is_five_times_the_calm_before_it():
    found = first("burst", 3000.0)
    burst = [one for one in found if one.at_s % 30.0 >= 24.0]
    calm = [one for one in found if one.at_s % 30.0 < 24.0]
    assert len(calm) / 2400.0 == pytest.approx(RATES["burst"], rel=0.05)
    assert len(burst) / 600.0 == pytest.approx(5 * RATES["burst"], rel=0.05)


def test_the_trace_goes_on_after_its_hour_and_says_how_long_answers_are():
    found = list(islice(arrivals("trace", 1.0, 0), 25_000))
    assert found[-1].at_s > 3600.0
    assert all(one.output_tokens for one in found)
    body = json.loads(chat_body(PLAN, found[0], Random(0)))
    assert (body["max_tokens"], body["ignore_eos"]) == (found[0].output_tokens, True)


def test_a_prompt_has_its_length_and_no_other_begins_like_it():
    rng = Random(0)
    one, other = (json.loads(chat_body(PLAN, Arrival(0.0, 100), rng)) for _ in range(2))
    texts = [body["messages"][0]["content"] for body in (one, other)]
    assert [len(text) for text in texts] == [400, 400]
    assert texts[0][:16] != texts[1][:16]
    assert "max_tokens" not in one


async def test_it_begins_when_the_gateway_is_ready():
    """Else all that came while it started would be served at once, which no card bears well."""
    asked: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readline())
        ready = sum(line.startswith(b"GET /ready") for line in asked) > 2
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n" if ready else b"HTTP/1.1 503 No\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    load = asyncio.create_task(run_load(LoadPlan(f"http://127.0.0.1:{port}", "m", 50.0)))
    async with asyncio.timeout(20):
        while not any(line.startswith(b"POST") for line in asked):
            await asyncio.sleep(0.02)
    load.cancel()
    server.close()
    first = next(n for n, line in enumerate(asked) if line.startswith(b"POST"))
    assert [line.split()[1] for line in asked[:first]] == [b"/ready"] * 3


@pytest.mark.parametrize(("text", "load"), [("3.5", ("steady", 3.5)), ("0", ("steady", 0.0))])
def test_a_number_is_a_rate(text: str, load: tuple[str, float]):
    assert parse(text) == load


@pytest.mark.parametrize("text", ["-1", "nan", "inf"])
def test_a_rate_is_a_rate(text: str):
    with pytest.raises(BadInputError, match="0 or more requests per second"):
        parse(text)


def test_a_profile_that_is_none():
    with pytest.raises(UnknownNameError, match="Did you mean 'steady'"):
        parse("stedy")
