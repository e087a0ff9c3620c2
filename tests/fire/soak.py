"""The gateway under constant churn: ``python -m tests.fire.soak --minutes 20`` (``make soak``).

Engines fail, vanish and come back, join and leave the fleet; clients come, stream, read slowly and
leave. Every few seconds it notes memory, file descriptors, objects of requests and the latency that
the gateway adds. At the end the slopes of these over time must be flat.

Exit status 1 if a slope is not, if the books do not balance or if anything is left behind.
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
from dataclasses import asdict, dataclass, field

import numpy as np
import uvloop

from tests.fire.census import descriptors, living, nothing_left_behind, rss_bytes
from tests.fire.client import Seen, ask, body_of, request_of
from tests.fire.test_engine_faults import well
from tests.fire.test_zero_loss import moody
from tests.router.gateway.fakes import FakeEngine, Gateway, eventually, fleet, running

CLIENTS, ENGINES = 24, 4
STILL_MODEL = "qwen2.5-7b"
"""Of one engine that nothing happens to: what the gateway adds is measured in front of it."""
WARM_UP = 0.25
"""Share of the run that fills caches, pools and histograms; slopes are taken after it."""
MOST_RSS_PER_MIN = 0.01
"""Growth of resident memory, as a share of it, that counts as none."""
MOST_LATENCY_PER_RUN = 1.5
"""The P99 of added latency at the end, against that at the beginning: a shared machine is noisy."""


@dataclass(slots=True)
class Sample:
    """What was seen at one moment.

    Attributes:
        at_s: since the beginning.
        rss_bytes, fds: of the whole process, clients and engines included.
        objects: of requests.
        added_p99_s: through the gateway less directly, one request at a time.
        requests: ended since the beginning.
    """

    at_s: float
    rss_bytes: int
    fds: int
    objects: int
    added_p99_s: float
    requests: int


@dataclass(slots=True)
class Verdict:
    """What came of a soak; figures are per minute after the warm-up."""

    minutes: float
    requests: int
    ends: dict[str, int]
    rss_mb: float
    rss_growth_per_min: float
    fds: int
    fds_slope_per_min: float
    added_p99_ms: float
    added_p99_ratio: float
    faults: list[str] = field(default_factory=list)


def slope(samples: list[Sample], name: str) -> float:
    """Of a least-squares line, per minute (Theil and Sen's median would do as well)."""
    at = [sample.at_s / 60.0 for sample in samples]
    return float(np.polyfit(at, [float(getattr(s, name)) for s in samples], 1)[0])


def judge(samples: list[Sample], ends: Counter[str], minutes: float) -> Verdict:
    """The slopes of what was seen after the warm-up."""
    settled = [s for s in samples if s.at_s >= WARM_UP * samples[-1].at_s]
    rss = float(np.median([s.rss_bytes for s in settled]))
    half = len(settled) // 2
    early = float(np.median([s.added_p99_s for s in settled[:half]]))
    late = float(np.median([s.added_p99_s for s in settled[half:]]))
    verdict = Verdict(
        minutes=minutes,
        requests=samples[-1].requests,
        ends=dict(ends),
        rss_mb=round(rss / 1e6, 1),
        rss_growth_per_min=round(slope(settled, "rss_bytes") / rss, 5),
        fds=int(np.median([s.fds for s in settled])),
        fds_slope_per_min=round(slope(settled, "fds"), 3),
        added_p99_ms=round(late * 1e3, 3),
        added_p99_ratio=round(late / early, 2),
    )
    if verdict.rss_growth_per_min > MOST_RSS_PER_MIN:
        verdict.faults.append("memory grows")
    # Connections come and go with the load: a leak of one a second would be 60.
    if verdict.fds_slope_per_min > 5.0:
        verdict.faults.append("file descriptors grow")
    if verdict.added_p99_ratio > MOST_LATENCY_PER_RUN:
        verdict.faults.append("added latency grows")
    return verdict


class Soak:
    """One run.

    Args:
        seconds: how long.
        seed: of everything that is random.
    """

    def __init__(self, seconds: float, seed: int = 1) -> None:
        self.seconds, self.ends = seconds, Counter[str]()
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
            self._began_s = time.monotonic()
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
        return judge(self.samples, self.ends, self.seconds / 60.0)

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
            await asyncio.sleep(rng.uniform(0.0, 0.1))

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
            through = [await _time(gate.url) for _ in range(30)]
            directly = [await _time(self._still.url) for _ in range(30)]
            self.samples.append(
                Sample(
                    time.monotonic() - self._began_s,
                    rss_bytes(),
                    descriptors(),
                    sum(living().values()),
                    float(np.percentile(through, 99) - np.percentile(directly, 50)),
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
    parser.add_argument("--json", metavar="FILE", help="write the verdict there, too")
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)  # thousands of deliberate failures
    soak = Soak(options.minutes * 60.0, options.seed)
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
