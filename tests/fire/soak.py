"""The gateway under constant churn: ``python -m tests.fire.soak --minutes 20`` (``make soak``).

Engines fail, vanish and come back, join and leave the fleet; clients come, stream, read slowly and
leave. Every few seconds it notes memory, file descriptors, objects of requests, and asks an engine
that nothing happens to through the gateway and directly, in pairs one right after the other: what
the gateway adds is the difference, and a machine that is busy with other things delays both alike.
After a warm-up all of it must be flat: Theil and Sen's slope (the median of all slopes between two
moments), and the lower end of its 95 % interval.

Exit status 1 if something grows, if the books do not balance or if anything is left behind.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import random
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import uvloop
from scipy.stats import theilslopes

from tests.fire.census import descriptors, living, nothing_left_behind, rss_bytes
from tests.fire.client import Seen, ask, body_of, request_of
from tests.fire.test_engine_faults import well
from tests.fire.test_zero_loss import moody
from tests.router.gateway.fakes import FakeEngine, Gateway, eventually, fleet, running

CLIENTS, ENGINES, PAIRS = 24, 4, 30
THINK_S = 0.5
"""Of a client between two requests, on average: the soak is about time, not about load."""
STILL_MODEL = "qwen2.5-7b"
"""Of one engine that nothing happens to: what the gateway adds is measured in front of it."""
WARM_UP = 0.25
"""Share of the run that fills caches, pools and histograms; slopes are taken after it."""
WINDOWS = 15
"""Of the rest: each has a P50 and a P99 of added latency of its own."""
MOST_GROWTH = {
    "memory": 0.05,
    "file descriptors": 0.10,
    "added latency, P50": 0.25,
    "added latency, P99": 0.5,
}
"""In the whole of the rest, as a share of the median: what counts as none."""


@dataclass(slots=True)
class Sample:
    """What was seen at one moment.

    Attributes:
        at_s: since the beginning.
        rss_bytes, fds: of the whole process, clients and engines included.
        objects: of requests.
        through_s, direct_s: how long each request of a pair took.
        requests: ended since the beginning.
    """

    at_s: float
    rss_bytes: int
    fds: int
    objects: int
    through_s: Sequence[float]
    direct_s: Sequence[float]
    requests: int


@dataclass(slots=True)
class Trend:
    """One quantity after the warm-up.

    Attributes:
        median: in its own unit.
        per_min: slope, in its unit a minute.
        growth: over the whole time, as a share of the median.
        least_growth: the lower end of its 95 % interval.
    """

    median: float
    per_min: float
    growth: float
    least_growth: float


@dataclass(slots=True)
class Verdict:
    """What came of a soak.

    Attributes:
        trends: of memory (MB), descriptors and added latency (ms).
        steal: share of the machine's CPU time that its host gave to others.
        faults: what grows.
    """

    minutes: float
    requests: int
    ends: dict[str, int]
    trends: dict[str, Trend]
    steal: float = 0.0
    faults: list[str] = field(default_factory=list)


def trend(at_s: Sequence[float], values: Sequence[float]) -> Trend:
    """Of a quantity over time."""
    slope, _, low, _ = theilslopes(values, at_s)
    median, span_s = float(np.median(values)), at_s[-1] - at_s[0]
    per_run = span_s / median
    return Trend(
        round(median, 3),
        round(float(slope) * 60.0, 4),
        round(float(slope) * per_run, 4),
        round(float(low) * per_run, 4),
    )


def added_ms(samples: Sequence[Sample], percent: float) -> float:
    """What the gateway adds to this percentile."""
    through = np.concatenate([s.through_s for s in samples])
    direct = np.concatenate([s.direct_s for s in samples])
    return float(np.percentile(through, percent) - np.percentile(direct, percent)) * 1e3


def judge(samples: list[Sample], ends: Counter[str], minutes: float) -> Verdict:
    """The trends of what was seen after the warm-up."""
    settled = [s for s in samples if s.at_s >= WARM_UP * samples[-1].at_s]
    at_s = [s.at_s for s in settled]
    size = max(1, len(settled) // WINDOWS)
    windows = [settled[n : n + size] for n in range(0, len(settled) - size + 1, size)]
    middles_s = [float(np.mean([s.at_s for s in window])) for window in windows]
    trends = {
        "memory": trend(at_s, [s.rss_bytes / 1e6 for s in settled]),
        "file descriptors": trend(at_s, [s.fds for s in settled]),
    }
    for percent in (50, 99):
        added = [added_ms(window, percent) for window in windows]
        trends[f"added latency, P{percent}"] = trend(middles_s, added)
    verdict = Verdict(minutes, samples[-1].requests, dict(ends), trends)
    for name, seen in trends.items():
        if seen.least_growth > 0.0 and seen.growth > MOST_GROWTH[name]:
            verdict.faults.append(f"{name}: grows")
    return verdict


def cpu_ticks() -> tuple[int, int]:
    """All of the machine's CPU time, and how much of it was stolen, since it started."""
    ticks = [int(part) for part in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    return sum(ticks), ticks[7]


class Soak:
    """One run.

    Args:
        seconds: how long.
        seed: of everything that is random.
        think_s: of each client between two requests, on average.
    """

    def __init__(self, seconds: float, seed: int = 1, think_s: float = THINK_S) -> None:
        self.seconds, self.think_s, self.ends = seconds, think_s, Counter[str]()
        self.samples: list[Sample] = []
        self._rng = random.Random(seed)
        self._engines = [
            FakeEngine(moody(random.Random(seed * 10 + n), 0.01 * n)) for n in range(ENGINES)
        ]
        self._still = FakeEngine(well)
        self._end_s = time.monotonic() + seconds

    async def run(self) -> Verdict:
        """Start everything, let it run, stop everything.

        Raises:
            AssertionError: the books do not balance, or something is left behind.
        """
        async with nothing_left_behind():
            for engine in (*self._engines, self._still):
                await engine.start()
            config = fleet(
                *self._engines,
                self._still,
                policy={"name": "motley", "seed": 1},
                reliability={
                    "first_byte_timeout_s": 2.0,
                    "idle_timeout_s": 2.0,
                    "queue_timeout_s": 5.0,
                    "breaker": {"open_s": 0.2, "max_open_s": 1.0},
                },
            )
            config["backends"][-1]["model"] = STILL_MODEL
            self._began_s, began = time.monotonic(), cpu_ticks()
            self._end_s = self._began_s + self.seconds
            async with running(config) as gate:
                chores = [self._look(gate), self._churn(gate)]
                await asyncio.gather(*chores, *(self._client(gate) for _ in range(CLIENTS)))
                await eventually(lambda: gate.relay.engine.live == 0)
                gate.assert_at_rest()
            for engine in (*self._engines, self._still):
                await engine.stop()
                engine.received.clear()
            gate.relay = None  # type: ignore[assignment]
        verdict = judge(self.samples, self.ends, self.seconds / 60.0)
        total, stolen = np.subtract(cpu_ticks(), began)
        verdict.steal = round(float(stolen / total), 3)
        return verdict

    @property
    def _over(self) -> bool:
        return time.monotonic() >= self._end_s

    async def _client(self, gate: Gateway) -> None:
        rng = random.Random(self._rng.random())
        while not self._over:
            patience_s = rng.choice([30.0, 30.0, 30.0, rng.uniform(0.0, 0.05)])
            try:
                async with asyncio.timeout(patience_s):
                    seen: Seen = await ask(gate, stream=rng.random() < 0.6)
                self.ends["ok" if seen.end == "ok" else "error" if seen.whole else "cut"] += 1
            except TimeoutError:
                self.ends["left"] += 1
            await asyncio.sleep(rng.uniform(0.0, 2.0 * self.think_s))

    async def _churn(self, gate: Gateway) -> None:
        """An engine dies and comes back at its port; another leaves the fleet and joins again."""
        runtime = gate.relay._rest.state.runtime
        while not self._over:
            await asyncio.sleep(1.0)
            victim = self._rng.choice(self._engines)
            await victim.stop()
            await asyncio.sleep(0.2)
            await victim.start()
            spec = runtime.engine.dispatcher.state.get(f"e{self._rng.randrange(ENGINES)}").spec
            runtime.remove_backend(spec.name)
            await asyncio.sleep(0.2)
            runtime.add_backend(spec)
            for engine in (*self._engines, self._still):
                engine.received.clear()
                engine.probes.clear()

    async def _look(self, gate: Gateway) -> None:
        every_s = min(5.0, self.seconds / 40)
        while not self._over:
            await asyncio.sleep(every_s)
            through, direct = list[float](), list[float]()
            both = ((through, gate.url), (direct, self._still.url))
            for n in range(PAIRS):
                for times, url in both if n % 2 else reversed(both):
                    times.append(await _time(url))
            self.samples.append(
                Sample(
                    time.monotonic() - self._began_s,
                    rss_bytes(),
                    descriptors(),
                    sum(living().values()),
                    through,
                    direct,
                    self.ends.total(),
                )
            )


async def _time(url: str) -> float:
    """Seconds of one request for the still engine, over a connection of its own."""
    began_s = time.perf_counter()
    reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
    writer.write(request_of(body_of(stream=False, model=STILL_MODEL)))
    answer = await reader.read(65_536)
    writer.close()
    assert answer.startswith(b"HTTP/1.1 200"), answer
    return time.perf_counter() - began_s


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--think",
        type=float,
        default=THINK_S,
        help="seconds between a client's requests, on average",
    )
    parser.add_argument("--json", metavar="FILE", help="write the verdict there, too")
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)  # thousands of deliberate failures
    soak = Soak(options.minutes * 60.0, options.seed, options.think)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        verdict = runner.run(soak.run())
    told = json.dumps(asdict(verdict), indent=2)
    print(told)
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            file.write(told + "\n")
    return 1 if verdict.faults else 0


if __name__ == "__main__":
    sys.exit(main())
