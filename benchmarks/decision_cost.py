"""CPU time of one decision by fleet size, several policies in one run.

A decision is ``policy.choose`` over a busy fleet whose state changes between decisions (one
request ends, one is sent), which is what the gateway does. With admission it is, besides, what the
scheduler of classes asks first: the request's targets and cost, and which backends are open to it.
CPU time of this process, the median of several rounds, after a warm-up; and the ratio to
``least-request`` at the same size.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from dataclasses import replace

from router.class_dispatcher import desk_of
from router.config.build import build_dispatcher
from router.config.load import MotleyConfig, load_config
from router.deciding import FRESH
from router.dispatcher import Dispatcher
from router.domain.decision import Assign
from router.domain.request import Request
from router.policies.registry import POLICIES

MODEL = "llama-3.1-8b"
PER_NINE = (("a100-80", "sglang", 1, 3), ("v100-32", "vllm", 1, 2), ("t4", "vllm", 2, 4))
WARM_UP = 500
ROUNDS = 7
DECISIONS = 300


ADMISSION = " + admission"


def fleet(size: int, policy: str) -> MotleyConfig:
    kinds = [(g, e, tp) for g, e, tp, n in PER_NINE for _ in range(n)]
    entries = [
        {"gpu": g, "engine": e, "tensor_parallel": tp, "model": MODEL}
        for g, e, tp in (kinds[i % len(kinds)] for i in range(size))
    ]
    admission = {"enabled": policy.endswith(ADMISSION)}
    config = load_config({"backends": entries, "admission": admission})
    name = policy.removesuffix(ADMISSION)
    return replace(config, policy=config.policy.model_copy(update={"name": name}))


class Traffic:
    """Keeps about 20 requests in flight per backend."""

    def __init__(self, dispatcher: Dispatcher, size: int) -> None:
        self.dispatcher, self.size = dispatcher, size
        self.rng = random.Random(1)
        self.now, self.sent = 0.0, 0
        self.live: list[str] = []

    def request(self) -> Request:
        self.now += 0.02 / self.size
        self.sent += 1
        tokens = int(self.rng.lognormvariate(6.5, 0.8)) + 1
        return Request(str(self.sent), MODEL, self.now, tokens)

    def step(self) -> None:
        request = self.request()
        if isinstance(self.dispatcher.dispatch(request, self.now), Assign):
            self.dispatcher.first_token(request.request_id, self.now)
            self.live.append(request.request_id)
        else:
            self.dispatcher.cancel(request.request_id, self.now)
        if len(self.live) > 20 * self.size:
            ended = self.live.pop(self.rng.randrange(len(self.live)))
            self.dispatcher.complete(ended, self.now, output_tokens=200)


def measure_us(size: int, policy: str) -> float:
    dispatcher = build_dispatcher(fleet(size, policy))
    traffic = Traffic(dispatcher, size)
    for _ in range(WARM_UP + 20 * size):
        traffic.step()
    chooser = dispatcher._policy
    desk = desk_of(dispatcher)
    rounds = []
    for _ in range(ROUNDS):
        spent = 0.0
        for _ in range(DECISIONS):
            traffic.step()
            request = traffic.request()
            request.forecast = dispatcher._predictor.forecast(request)
            candidates = dispatcher.state.candidates(MODEL, traffic.now)
            begun = time.process_time_ns()
            opened = candidates
            if desk is not None:
                entry = desk.entry(request, FRESH, candidates, traffic.now, counted=False)
                opened = desk.open_to(entry, candidates, traffic.now)
            chooser.choose(request, opened, traffic.now)
            spent += time.process_time_ns() - begun
        rounds.append(spent / DECISIONS / 1000)
    return statistics.median(rounds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", default="4,16,64,256,1024")
    parser.add_argument(
        "--policies",
        default=f"least-request,nginx-least-conn,marginal-delay,motley,motley{ADMISSION}",
    )
    options = parser.parse_args()
    sizes = [int(size) for size in options.sizes.split(",")]
    names = list(POLICIES) if options.policies == "all" else options.policies.split(",")
    print(f"{'CPU us per decision':28s}" + "".join(f"{size:>10d}" for size in sizes))
    floor = {size: measure_us(size, "least-request") for size in sizes}
    for name in names:
        row = {size: measure_us(size, name) for size in sizes}
        print(f"{name:28s}" + "".join(f"{row[size]:10.1f}" for size in sizes))
        ratios = "".join(f"{row[size] / floor[size]:9.1f}x" for size in sizes)
        print(f"{'  against least-request':28s}" + ratios)


if __name__ == "__main__":
    main()
