"""Looking at most backends only briefly changes no answer."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest

from router.domain.slo import Slo
from router.domain.state import EngineSignals
from router.queue.class_room import Entry
from router.queue.gate import Gate, Limits
from tests.fakes import FAST, SLOW, ask, view

PAIRS = replace(FAST, pair_s=1e-8)
"""Long prompts take longer a token."""

SLOS = (
    Slo("bulk"),
    Slo("interactive", ttft_s=0.8, tpot_s=0.05),
    Slo("interactive", ttft_s=2.0, tpot_s=0.1, e2e_s=9.0),
    Slo("throughput", ttft_s=10.0, tpot_s=0.25),
)


class Watched(Gate):
    """Counts the close looks that found nothing."""

    in_vain = 0

    def obstacle(self, *args: Any, **options: Any) -> str:
        found = super().obstacle(*args, **options)
        self.in_vain += not found
        return found


@pytest.mark.parametrize("seed", range(8))
def test_the_open_backends_are_those_without_an_obstacle(seed: int):
    draw = random.Random(seed)
    gate, now = Watched(0.8, 0.5, 0.8), 100.0
    fleet = [view(f"b{n}", n, draw.choice([FAST, SLOW, PAIRS])) for n in range(40)]
    opened = 0
    for step in range(150):
        now += draw.random() * 0.2
        for backend in draw.sample(fleet, 6):
            backend.in_flight = draw.choice([0, 1, 8, 60, 256])
            backend.prefilling = min(backend.in_flight, draw.choice([0, 0, 1, 3]))
            backend.decoding = backend.in_flight - backend.prefilling
            backend.pending_prefill_tokens = backend.prefilling * draw.randrange(1, 4_000)
            backend.prefill_since_s = now - draw.random()
            backend.context_tokens = backend.in_flight * draw.uniform(10.0, 2_000.0)
            if draw.random() < 0.3:
                ratio = draw.choice([None, 0.0, 0.6])
                backend.signals = EngineSignals(now, prefix_hit_ratio=ratio)
            backend.version += 1
        if draw.random() < 0.5:
            gate.sent(draw.choice(fleet), draw.randrange(1, 4_000), now)
        slo = draw.choice(SLOS)
        asked = ask(
            prompt_tokens=draw.randrange(1, draw.choice([6_000, 20_000])),
            arrival_s=now - draw.random(),
            forecast=draw.uniform(0.0, 800.0),
        )
        entry = Entry(asked, frozenset(), now + 9.0, slo, slo.urgent, now + 1.0, 1.0)
        limits = draw.choice([Limits(), Limits(0.1, 2.0), Limits(0.1, 2.0, 0.6), Limits(0.04, 0.5)])
        found = gate.open(entry, fleet, limits, now)
        wanted = [b for b in fleet if not Gate.obstacle(gate, entry, b, limits, now)]
        assert [b.index for b in found] == [b.index for b in wanted], step
        opened += len(found)
    assert 500 < opened < 5_500, "neither always nor never"
    assert gate.in_vain < 0.15 * opened, "most that are open are so at a glance"


@pytest.mark.parametrize("prompt_tokens", [1_000, 20_000], ids=["small", "large"])
def test_nobody_who_has_room_is_looked_at_closely(
    prompt_tokens: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(Gate, "obstacle", None)
    busy = {"in_flight": 8, "decoding": 8, "context_tokens": 8_000.0}
    fleet = [view(f"b{n}", n, FAST, **busy) for n in range(3)]
    asked = ask(prompt_tokens=prompt_tokens, arrival_s=0.0, forecast=100.0)
    slo = Slo("interactive", ttft_s=20.0, tpot_s=0.1, e2e_s=60.0)
    entry = Entry(asked, frozenset(), 9.0, slo, True, 1.0, 1.0)
    assert Gate(0.8, 0.5, 0.8).open(entry, fleet, Limits(0.1, 20.0), 0.0) == fleet
