"""How soon the gateway learns that a speed is wrong, or has changed.

One backend whose belief is right, then made wrong from the first request on (it takes 1.5 times
as long as believed, or two thirds), and after a while made to change at once. Told are the
requests until the learned correction is within 10% of the truth and stays there, and the seconds
after the change. In the simulator (median and worst of eight arrivals), and with ``--live`` over
HTTP against an emulated engine.

Made on a real engine's schedule, the linear belief is itself a few percent off: right is what
feedback settles at when nothing was made wrong, times the factor.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx

sys.path.insert(0, str(Path(__file__).parents[2]))

from router.config.load import load_config
from router.dispatcher import Dispatcher
from router.domain.outcome import Outcome
from router.gateway.outcome_queue import OutcomeQueue
from simulator.engine_server.host import EngineHost
from simulator.faults import Fault
from simulator.options import ReplayOptions
from simulator.run import build_replay
from simulator.synthetic import builtin_trace
from simulator.traces.transform import scale_rate
from telemetry.feedback import Feedback

MODEL = "llama-3.1-8b"
WITHIN, IN_A_ROW = 0.10, 10
CARDS = (
    {"gpu": "a100-80", "engine": "sglang"},
    {"gpu": "v100-32", "engine": "vllm"},
    {"gpu": "t4", "engine": "vllm", "tensor_parallel": 2},
)
LOADS = {"a100-80": 0.3, "v100-32": 0.1, "t4": 0.06}
"""Of the built-in conversation workload, as a share of its rate."""

CHANGE_S, CHANGE, END_S = 900.0, 1.8, 1200.0
SEEDS = range(8)


@dataclass(frozen=True)
class Reached:
    """When it was right: requests and seconds from the start, and the median error after it."""

    requests: int
    seconds: float
    error: float


@dataclass
class Course:
    """An ``Observer`` that notes what is believed of one backend as requests end.

    Attributes:
        points: (seconds, requests so far, prefill correction, decode correction).
    """

    feedback: Feedback
    points: list[tuple[float, int, float, float]] = field(default_factory=list)

    def observe(self, outcome: Outcome) -> None:
        prefill, decode = self.feedback.corrections()[outcome.backend]
        self.points.append((outcome.finished_s, len(self.points) + 1, prefill, decode))

    def reached(self, phase: int, target: float, start_s: float, end_s: float) -> Reached | None:
        """When ten estimates in a row were within 10% of ``target``, and how good they stayed."""
        inside = [p for p in self.points if start_s <= p[0] <= end_s]
        errors = [abs(p[2 + phase] / target - 1.0) for p in inside]
        for k in range(len(errors) - IN_A_ROW + 1):
            if max(errors[k : k + IN_A_ROW]) <= WITHIN:
                later = sorted(errors[k:])
                return Reached(k + 1, inside[k][0] - start_s, later[len(later) // 2])
        return None

    def level(self, phase: int, start_s: float, end_s: float) -> float:
        """Median correction of a stretch."""
        inside = sorted(p[2 + phase] for p in self.points if start_s <= p[0] <= end_s)
        return inside[len(inside) // 2]


def watch(owner: Dispatcher | OutcomeQueue) -> Course:
    """Note what the learner believes, after each of its lessons.

    Args:
        owner: whoever tells the learner: in the gateway that is a queue of the dispatcher's.
    """
    observers = owner._observers
    for queue in observers:
        if isinstance(queue, OutcomeQueue):
            return watch(queue)
    course = Course(next(one for one in observers if isinstance(one, Feedback)))
    owner._observers = (*observers, course)
    return course


def simulated(card: dict[str, Any], faults: Sequence[Fault], seed: int = 0) -> Course:
    """Twenty minutes of conversations on one card."""
    config = load_config({"backends": [{**card, "model": MODEL, "name": "b"}]})
    trace = builtin_trace("azure-conv-like", duration_s=END_S * LOADS[card["gpu"]], seed=seed)
    replay = build_replay(
        scale_rate(trace, LOADS[card["gpu"]]),
        config,
        "round-robin",
        ReplayOptions(seed=seed, model_error=0.0),
        faults=faults,
        log=lambda _: None,  # or nothing would be learned: round robin does not look at it
    )
    course = watch(replay.dispatchers[0])
    replay.run()
    return course


def slow(at_s: float, factor: float, for_s: float | None = None) -> Fault:
    return Fault(at_s=at_s, backend="b", kind="slow", factor=factor, for_s=for_s)


def simulate_all() -> None:
    print("| simulated | wrong prior | phase | requests to 10 % | change | seconds to 10 % |")
    print("|---|--:|---|--:|--:|--:|")
    for card in CARDS:
        for factor in (1.5, 1 / 1.5):
            found = [_simulate_one(card, factor, seed) for seed in SEEDS]
            for phase, name in enumerate(("prefill", "decode")):
                print(
                    f"| {card['gpu']} {card['engine']} | x {factor:.2f} | {name} | "
                    f"{_requests([first[phase] for first, _ in found])} | x {CHANGE} | "
                    f"{_seconds([after[phase] for _, after in found])} |"
                )


Phases = list[Reached | None]


def _simulate_one(card: dict[str, Any], factor: float, seed: int) -> tuple[Phases, Phases]:
    """What was reached after the start, and after the change, by phase."""
    right = simulated(card, [], seed)
    course = simulated(card, [slow(0.0, factor), slow(CHANGE_S, factor * CHANGE)], seed)
    first: Phases = []
    after: Phases = []
    for phase in (0, 1):
        base = right.level(phase, CHANGE_S / 2, END_S) * factor
        first.append(course.reached(phase, base, 0.0, CHANGE_S))
        after.append(course.reached(phase, base * CHANGE, CHANGE_S, END_S))
    return first, after


def _requests(found: Phases) -> str:
    return _told([None if one is None else one.requests for one in found], found)


def _seconds(found: Phases) -> str:
    return _told([None if one is None else round(one.seconds) for one in found], found)


def _told(when: Sequence[int | None], found: Phases) -> str:
    """Median and, of several, the worst; in brackets the median error from then on."""
    known = [one for one in when if one is not None]
    if not known:
        return "never"
    error = statistics.median(one.error for one in found if one is not None)
    worst = f", worst {max(known) if len(known) == len(when) else 'never'}" if len(when) > 1 else ""
    return f"{statistics.median(known):.0f}{worst} ({100 * error:.0f} %)"


# Over HTTP


@dataclass(frozen=True)
class Live:
    """One run against an emulated engine.

    Attributes:
        wrong: factor of the engine's times from the start on.
        before_s, after_s: how long, before and after the change.
        rate_per_s: of requests.
    """

    wrong: float = 1.5
    before_s: float = 75.0
    after_s: float = 75.0
    rate_per_s: float = 2.0


async def live(run: Live) -> tuple[Course, float]:
    """The course over HTTP, and when the change came (on its clock)."""
    from router.gateway.app import build_app  # noqa: PLC0415 - a second
    from router.gateway.server import bind, server, url_of  # noqa: PLC0415

    config = load_config(
        {"backends": [{"gpu": "a100-80", "engine": "vllm", "model": MODEL, "name": "b"}]}
    )
    with EngineHost(config.fleet.backends) as host, bind("127.0.0.1", 0) as listener:
        host.start(speed=1.0)
        host.wait_until_ready()
        placed = replace(config.fleet.backends[0], url=host.urls["b"])
        app = build_app(replace(config, fleet=replace(config.fleet, backends=(placed,))))
        course = watch(app.engine.dispatcher)
        web = server(app, drain_s=1.0)
        serving = asyncio.create_task(web.serve(sockets=[listener]))
        while not web.started:
            await asyncio.sleep(0.01)
        try:
            async with httpx.AsyncClient(timeout=60.0, trust_env=False) as client:
                change_s = await _drive(client, url_of(listener), host.urls["b"], run)
        finally:
            web.should_exit = True
            await serving
    return course, change_s


async def _drive(client: httpx.AsyncClient, gateway: str, engine: str, run: Live) -> float:
    rng = random.Random(1)
    await client.post(f"{engine}/fault", json={"slow_factor": run.wrong})
    loop = asyncio.get_running_loop()
    start_s, change_s = loop.time(), 0.0
    asking: set[asyncio.Task[None]] = set()
    while (elapsed_s := loop.time() - start_s) < run.before_s + run.after_s:
        if not change_s and elapsed_s >= run.before_s:
            await client.post(f"{engine}/fault", json={"slow_factor": run.wrong * CHANGE})
            change_s = time.monotonic()
        task = asyncio.create_task(
            _ask(client, gateway, rng.randint(200, 2000), rng.randint(8, 80))
        )
        asking.add(task)
        task.add_done_callback(asking.discard)
        await asyncio.sleep(rng.expovariate(run.rate_per_s))
    await asyncio.gather(*asking)
    return change_s


async def _ask(client: httpx.AsyncClient, gateway: str, words: int, tokens: int) -> None:
    # A prompt of its own each, else the engine finds it in its prefix cache.
    text = f"{random.random()} " + "word " * words
    body = {
        "model": MODEL,
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": tokens,
        "ignore_eos": True,
        "messages": [{"role": "user", "content": text}],
    }
    url = f"{gateway}/v1/chat/completions"
    async with client.stream("POST", url, json=body) as answer:
        async for _ in answer.aiter_raw():
            pass


def live_all() -> None:
    print("| over HTTP | wrong prior | phase | requests to 10 % | change | seconds to 10 % |")
    print("|---|--:|---|--:|--:|--:|")
    right, _ = asyncio.run(live(Live(wrong=1.0, before_s=40.0, after_s=0.0)))
    start_s = right.points[0][0]
    base = [right.level(phase, start_s + 20.0, start_s + 40.0) for phase in (0, 1)]
    for factor in (1.5, 1 / 1.5):
        course, change_s = asyncio.run(live(Live(wrong=factor)))
        for phase, name in enumerate(("prefill", "decode")):
            began_s = course.points[0][0]
            first = course.reached(phase, base[phase] * factor, began_s, change_s)
            after = course.reached(phase, base[phase] * factor * CHANGE, change_s, 1e18)
            print(
                f"| a100-80 vllm | x {factor:.2f} | {name} | {_requests([first])} | x {CHANGE} | "
                f"{_seconds([after])} |"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--live", action="store_true", help="over HTTP (six minutes) instead")
    if parser.parse_args().live:
        live_all()
    else:
        simulate_all()


if __name__ == "__main__":
    main()
