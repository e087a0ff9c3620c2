"""Visiting engines: each on its own time, and what is wrong is told, not hidden."""

from __future__ import annotations

import asyncio
import json
import random

import pytest

from router.domain.fleet import BackendSpec
from router.domain.state import EngineSignals
from telemetry.scraper import Scraper, Target, targets
from tests.telemetry.expositions import LOADS, SGLANG, VLLM_V1
from tests.telemetry.web import Pages, page, serving


class Clock:
    def __init__(self) -> None:
        self.time_s = 100.0

    def now(self) -> float:
        return self.time_s


class Seen:
    """A scraper with everything it said."""

    def __init__(self, fetcher: Pages | None, *targets: Target, **more: float) -> None:
        self.signals: list[tuple[str, EngineSignals]] = []
        self.errors: list[tuple[str, str]] = []
        self.restarts: list[str] = []
        self.clock = Clock()
        self.scraper = Scraper(
            lambda name, signals: self.signals.append((name, signals)),
            interval_s=more.get("interval_s", 0.01),
            timeout_s=more.get("timeout_s", 0.05),
            rng=random.Random(1),
            clock=self.clock,
            fetcher=fetcher,
            on_error=lambda name, error: self.errors.append((name, error.kind)),
            on_restart=self.restarts.append,
        )
        for target in targets:
            self.scraper.add(target)


VLLM = Target("v", "http://v:8000/v1", "vllm")
SGL = Target("s", "http://s:30000/", "sglang")


def test_targets_are_the_backends_with_an_address() -> None:
    here = BackendSpec("a", "t4", "vllm", "m", url="http://a")
    nowhere = BackendSpec("b", "t4", "vllm", "m")
    assert targets([here, nowhere]) == [Target("a", "http://a", "vllm")]


async def test_a_good_scrape_reaches_the_sink_with_the_time_it_was_sent() -> None:
    seen = Seen(Pages({"http://v:8000/metrics": VLLM_V1.encode()}), VLLM)
    assert await seen.scraper.scrape("v")
    ((name, signals),) = seen.signals
    assert name == "v"
    assert (signals.observed_s, signals.running, signals.waiting) == (100.0, 12, 5)
    report = seen.scraper.signals_report()["v"]
    assert report.missing == ()
    assert report.notes() == ()
    assert (report.found_engine, report.model) == ("vllm", "m")
    seen.clock.time_s = 103.0
    assert report.age_s(seen.clock.now()) == 3.0


async def test_an_sglang_without_metrics_is_read_from_its_load_page() -> None:
    pages = Pages({"http://s:30000/v1/loads": LOADS.encode()})
    seen = Seen(pages, SGL)
    assert not await seen.scraper.scrape("s")
    assert seen.errors == [("s", "status")]
    assert await seen.scraper.scrape("s")
    assert seen.signals[0][1].running == 3
    report = seen.scraper.signals_report()["s"]
    assert report.endpoint == "/v1/loads"
    assert report.accelerator == "NVIDIA A100-SXM4-80GB"
    assert "does not tell preemptions" in report.notes()[0]


async def test_an_sglang_is_asked_once_what_card_it_has() -> None:
    pages = Pages(
        {
            "http://s:30000/metrics": SGLANG.encode(),
            "http://s:30000/v1/loads": LOADS.encode(),
        }
    )
    seen = Seen(pages, SGL)
    for _ in range(3):
        assert await seen.scraper.scrape("s")
    assert seen.scraper.signals_report()["s"].accelerator == "NVIDIA A100-SXM4-80GB"
    assert pages.asked.count("http://s:30000/v1/loads") == 1


async def test_a_page_without_signals_is_a_failure_and_reaches_nobody() -> None:
    seen = Seen(Pages({"http://v:8000/metrics": b"<html>login</html>\n"}), VLLM)
    assert not await seen.scraper.scrape("v")
    assert seen.signals == []
    assert seen.errors == [("v", "no_signals")]
    report = seen.scraper.signals_report()["v"]
    assert report.age_s(1e9) is None
    assert report.notes()[0].startswith("no scrape has succeeded yet")


async def test_a_wrongly_configured_engine_is_read_and_named() -> None:
    seen = Seen(Pages({"http://v:8000/metrics": SGLANG.encode()}), VLLM)
    assert await seen.scraper.scrape("v")
    report = seen.scraper.signals_report()["v"]
    assert report.notes() == ("configured as vllm, but speaks sglang",)


async def test_another_model_behind_the_same_address_is_noticed() -> None:
    other = VLLM_V1.replace('model_name="m"', 'model_name="other"').encode()
    seen = Seen(Pages({"http://v:8000/metrics": [VLLM_V1.encode(), other]}), VLLM)
    await seen.scraper.scrape("v")
    await seen.scraper.scrape("v")
    report = seen.scraper.signals_report()["v"]
    assert report.identity_changes == 1
    assert report.model == "other"
    assert len(seen.signals) == 1, "what the stranger said first is not believed"
    await seen.scraper.scrape("v")
    assert len(seen.signals) == 2


async def test_a_restart_is_told() -> None:
    young = VLLM_V1.replace("1.79520897632e+09", "1.8e+09").encode()
    seen = Seen(Pages({"http://v:8000/metrics": [VLLM_V1.encode(), young]}), VLLM)
    await seen.scraper.scrape("v")
    assert seen.restarts == []
    await seen.scraper.scrape("v")
    assert seen.restarts == ["v"]


async def test_problems_of_the_text_are_counted_per_backend() -> None:
    nan = VLLM_V1.replace(" 0.5\n", " NaN\n").encode()
    seen = Seen(Pages({"http://v:8000/metrics": nan}), VLLM)
    await seen.scraper.scrape("v")
    plain = seen.scraper.signals_report()["v"].as_dict(101.0)
    assert plain["problems"] == {"nan": 1}
    assert plain["missing"] == ("kv_usage",)
    json.dumps(plain)


async def test_a_hung_engine_delays_nobody_and_a_dead_one_is_visited_less_often() -> None:
    """Real sockets: one engine never answers, one refuses, one is well."""
    async with (
        serving(lambda n, r: page(VLLM_V1)) as (well, _),
        serving(lambda n, r: None) as (hung, _),
    ):
        seen = Seen(
            None,
            Target("well", well, "vllm"),
            Target("hung", hung, "vllm"),
            Target("dead", "http://127.0.0.1:1", "vllm"),
            timeout_s=30.0,
        )
        running = asyncio.create_task(seen.scraper.run())
        while len(seen.signals) < 10:
            await asyncio.sleep(0.005)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
    assert {name for name, _ in seen.signals} == {"well"}
    report = seen.scraper.signals_report()
    assert report["hung"].scrapes == 0  # still waiting for its first
    assert 1 <= report["dead"].failures["connect"] < report["well"].scrapes


async def test_targets_come_and_go_while_it_runs() -> None:
    pages = Pages({f"http://{n}/metrics": VLLM_V1.encode() for n in "ab"})
    seen = Seen(pages, Target("a", "http://a", "vllm"), interval_s=0.001)
    running = asyncio.create_task(seen.scraper.run())
    while not seen.signals:
        await asyncio.sleep(0.001)
    seen.scraper.add(Target("b", "http://b", "vllm"))
    seen.scraper.remove("a")
    while seen.signals[-1][0] != "b":
        await asyncio.sleep(0.001)
    before = pages.asked.count("http://a/metrics")
    await asyncio.sleep(0.02)
    assert pages.asked.count("http://a/metrics") == before
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert pages.closed


async def test_an_answer_for_a_target_that_has_gone_is_dropped() -> None:
    class Late(Pages):
        async def get(self, url: str, *, timeout_s: float, max_bytes: int) -> bytes:
            seen.scraper.remove("v")
            return VLLM_V1.encode()

    seen = Seen(Late({}), VLLM)
    await seen.scraper.scrape("v")
    assert seen.signals == []


async def test_an_error_of_the_sink_is_not_swallowed() -> None:
    def sink(name: str, signals: EngineSignals) -> None:
        raise ZeroDivisionError

    scraper = Scraper(
        sink,
        interval_s=0.001,
        timeout_s=1.0,
        rng=random.Random(1),
        clock=Clock(),
        fetcher=Pages({"http://v:8000/metrics": VLLM_V1.encode()}),
    )
    scraper.add(VLLM)
    with pytest.raises(ExceptionGroup) as caught:
        await scraper.run()
    assert caught.group_contains(ZeroDivisionError)


async def test_visits_are_spread_over_the_interval_and_jittered() -> None:
    drawn: list[tuple[float, float]] = []

    class Draws(random.Random):
        def uniform(self, a: float, b: float) -> float:
            drawn.append((a, b))
            return super().uniform(0.0, 0.01)

    pages = Pages({f"http://{n}/metrics": VLLM_V1.encode() for n in range(50)})
    signals: list[str] = []
    scraper = Scraper(
        lambda name, _: signals.append(name),
        interval_s=7.0,
        timeout_s=1.0,
        rng=Draws(1),
        clock=Clock(),
        fetcher=pages,
    )
    for n in range(50):
        scraper.add(Target(str(n), f"http://{n}", "vllm"))
    running = asyncio.create_task(scraper.run())
    while len(signals) < 100:
        await asyncio.sleep(0.001)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert drawn[:50] == [(0.0, 7.0)] * 50
    assert set(drawn[50:]) == {(0.9, 1.1)}
