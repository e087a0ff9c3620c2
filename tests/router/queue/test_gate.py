"""Whom the gate lets through: every limit from both sides, with figures worked out by hand.

A prompt of 1,000 tokens and an answer of 100 on an idle backend of 10 ms an iteration: a token
takes tau = 0.01 + 0.0002 + 1e-6 * 1050 = 0.01125 s, the prompt 0.1 + (1000 / 2048 + 1) * tau =
0.11674 s, the whole 0.11674 + 100 * tau = 1.24174 s.
"""

from __future__ import annotations

import math
import random
from typing import Any

import pytest

from router.domain.slo import Slo
from router.domain.state import EngineSignals
from router.queue.class_room import Entry
from router.queue.gate import Gate, Limits, Relief
from tests.fakes import ask, view

TAU_S, TTFT_S, E2E_S = 0.01125, 0.116743, 1.241743
BULK = Slo("bulk")


def gate() -> Gate:
    return Gate(margin=0.8, protect=0.5, headroom=0.9)


def entry(slo: Slo = BULK, *, urgent: bool | None = None, **fields: Any) -> Entry:
    request = ask("r", slo_class=slo.name, forecast=100.0, **fields)
    has = slo.ttft_s is not None or slo.e2e_s is not None
    return Entry(request, frozenset(), math.inf, slo, has if urgent is None else urgent, 0.0, 1.0)


def obstacle(one: Entry, backend: Any, limits: Limits | None = None, **more: Any) -> str:
    return gate().obstacle(one, backend, limits or Limits(), 0.0, **more)


def both_sides(kept: str, broken: str, word: str) -> None:
    assert kept == ""
    assert word in broken


def test_an_idle_backend_is_open_to_whoever_has_no_target() -> None:
    full = view(context_tokens=10**9)
    assert obstacle(entry(), full, Limits(tpot_s=1e-9, ttft_s=1e-9)) == ""


def test_kv_for_the_prompt_and_half_of_the_answer() -> None:
    """95 % of 100,000 tokens, of which this one needs 1,050."""
    both_sides(
        obstacle(entry(), view(in_flight=1, context_tokens=93_950.0)),
        obstacle(entry(), view(in_flight=1, context_tokens=93_951.0)),
        "KV",
    )


def test_a_free_sequence() -> None:
    both_sides(
        obstacle(entry(), view(in_flight=255)), obstacle(entry(), view(in_flight=256)), "sequence"
    )
    relief = Relief(seqs=1)
    assert obstacle(entry(), view(in_flight=256), relief=relief) == ""


def test_what_is_taken_back_makes_room() -> None:
    backend = view(in_flight=2, context_tokens=94_000.0)
    assert obstacle(entry(), backend)
    assert obstacle(entry(), backend, relief=Relief(context_tokens=50.0, seqs=1)) == ""


@pytest.mark.parametrize(
    ("ttft_s", "share"), [(1.0, 0.8), (2.0, 0.8 * 0.9)], ids=["the tightest", "another"]
)
def test_tokens_come_as_fast_as_the_tightest_target_asks(ttft_s: float, share: float) -> None:
    """Others than the tightest class leave it a tenth of headroom."""
    one = entry(Slo("chat", ttft_s=ttft_s))
    both_sides(
        obstacle(one, view(), Limits(tpot_s=TAU_S / share * 1.001, ttft_s=1.0)),
        obstacle(one, view(), Limits(tpot_s=TAU_S / share * 0.999, ttft_s=1.0)),
        "tokens would come slower",
    )


def test_one_without_a_target_may_not_slow_down_who_decodes_there() -> None:
    """With one under way tau is 0.0002 longer; nine tenths of 80 % are allowed."""
    tau_s = TAU_S + 0.0002
    backend = view(in_flight=1, decoding=1)
    both_sides(
        obstacle(entry(), backend, Limits(tpot_s=tau_s / 0.72 * 1.001)),
        obstacle(entry(), backend, Limits(tpot_s=tau_s / 0.72 * 0.999)),
        "tokens would come slower",
    )
    # Who has waited too long needs to leave no headroom.
    assert obstacle(entry(), backend, Limits(tpot_s=tau_s / 0.8 * 1.001), aged=True) == ""
    assert obstacle(entry(), backend, Limits(tpot_s=tau_s / 0.8 * 0.999), aged=True)


def test_a_last_chance_spoils_nobody_elses_tokens() -> None:
    """Where others decode the margin holds to the end; alone it may use up the whole target."""
    one, slow = entry(Slo("chat", ttft_s=9.0)), "tokens would come slower"
    tight = Limits(tpot_s=(TAU_S + 0.0002) * 1.001, ttft_s=9.0)
    assert slow in obstacle(one, view(in_flight=1, decoding=1), tight, last=True)
    both_sides(obstacle(one, view(), tight, last=True), obstacle(one, view(), tight), slow)


@pytest.mark.parametrize("share", [1.0, 0.5])
def test_only_the_learned_share_of_the_room_above_an_idle_backends_time(share: float) -> None:
    """Nine more sequences add 0.0018 s to a token; at half the share there must be room for twice
    that, however slow the backend is by itself."""
    one, backend = entry(Slo("chat", ttft_s=9.0)), view(in_flight=9, decoding=9)
    room_s = 0.0018 / share

    def why(factor: float) -> str:
        return obstacle(one, backend, Limits((TAU_S + room_s * factor) / 0.8, 9.0, share))

    both_sides(why(1.001), why(0.999), "tokens would come slower")
    idle = Limits(TAU_S / 0.8 * 1.001, 9.0, share)
    assert obstacle(one, view(), idle) == "", "what would stay idle otherwise is used"


def test_decoding_stands_still_while_prompts_are_prefilled() -> None:
    """Of the last six seconds 1.5 s went to prompts: everything takes 1 / (1 - 0.25) as long, and
    after another six seconds the share is a quarter by e."""
    one, backend, judge = entry(Slo("chat", ttft_s=9.0)), view(), gate()
    judge.sent(backend, 15_000, 0.0)

    def lets(tau_s: float, now: float) -> bool:
        limits = Limits(tpot_s=tau_s / 0.8, ttft_s=9.0)
        return judge.admits(one, backend, limits, now)

    stretched = TAU_S / (1 - 0.25)
    assert lets(stretched * 1.001, 0.0)
    assert not lets(stretched * 0.999, 0.0)
    later = TAU_S / (1 - 0.25 / math.e)
    assert lets(later * 1.001, 6.0)
    assert not lets(later * 0.999, 6.0)
    judge.sent(backend, 15_000, 6.0)
    again = TAU_S / (1 - 0.25 / math.e - 0.25)
    assert lets(again * 1.001, 6.0)
    assert not lets(again * 0.999, 6.0)
    judge.sent(backend, 10**6, 6.0)
    assert lets(TAU_S / (1 - 0.75) * 1.001, 6.0), "at most three quarters"
    assert not lets(TAU_S / (1 - 0.75) * 0.999, 6.0)


def test_its_own_ttft_within_the_margin() -> None:
    both_sides(
        obstacle(entry(Slo("chat", ttft_s=TTFT_S / 0.8 * 1.001)), view()),
        obstacle(entry(Slo("chat", ttft_s=TTFT_S / 0.8 * 0.999)), view()),
        "miss its own target",
    )
    # What it has waited counts; at its last chance it may use up the whole.
    waited = entry(Slo("chat", ttft_s=TTFT_S / 0.8 * 1.001), arrival_s=-0.01)
    assert obstacle(waited, view())
    assert obstacle(entry(Slo("chat", ttft_s=TTFT_S * 1.001)), view())
    assert obstacle(entry(Slo("chat", ttft_s=TTFT_S * 1.001)), view(), last=True) == ""


def test_its_own_e2e_within_the_margin() -> None:
    both_sides(
        obstacle(entry(Slo("job", e2e_s=E2E_S / 0.8 * 1.001)), view()),
        obstacle(entry(Slo("job", e2e_s=E2E_S / 0.8 * 0.999)), view()),
        "miss its own target",
    )
    assert obstacle(entry(Slo("job", e2e_s=1e-9), urgent=False), view()) == ""


def test_a_prompt_of_others_does_not_keep_the_tightest_class_waiting() -> None:
    """Half of its TTFT target, once somebody is there; 0.0002 more a token then."""
    own_s = 0.1 + (1000 / 2048 + 1) * (TAU_S + 0.0002)
    backend = view(in_flight=1, decoding=1)
    both_sides(
        obstacle(entry(), backend, Limits(ttft_s=own_s / 0.5 * 1.001)),
        obstacle(entry(), backend, Limits(ttft_s=own_s / 0.5 * 0.999)),
        "keep requests of a tighter class waiting",
    )
    limits = Limits(ttft_s=1.0)
    tightest = entry(Slo("chat", ttft_s=1.0))
    busy = view(in_flight=1, prefilling=1, pending_prefill_tokens=5_000, prefill_since_s=0.0)
    assert "tighter" in obstacle(entry(), busy, limits)
    assert obstacle(tightest, busy, limits) == "", "it is that class"


def test_the_aged_go_where_the_prompts_ahead_are_short() -> None:
    """0.3 s: 2,500 tokens take 0.25 s and two iterations, 3,000 take 0.3 s and more."""
    short = view(in_flight=1, prefilling=1, pending_prefill_tokens=2_500, prefill_since_s=0.0)
    long = view(in_flight=1, prefilling=1, pending_prefill_tokens=3_000, prefill_since_s=0.0)
    both_sides(
        obstacle(entry(), short, aged=True), obstacle(entry(), long, aged=True), "busy with prompts"
    )
    assert obstacle(entry(), long, aged=True, relief=Relief(prefill_s=0.1)) == ""


@pytest.mark.parametrize(("ratio", "cached"), [(0.5, 0.5), (1.0, 0.95), (-1.0, 0.0), (None, 0.0)])
def test_cached_prompts_take_less(ratio: float | None, cached: float) -> None:
    """Never believed beyond 95 %."""
    fresh = 1000 * (1 - cached)
    ttft_s = fresh * 1e-4 + (fresh / 2048 + 1) * TAU_S
    backend = view(signals=EngineSignals(0.0, prefix_hit_ratio=ratio))
    both_sides(
        obstacle(entry(Slo("chat", ttft_s=ttft_s / 0.8 * 1.001)), backend),
        obstacle(entry(Slo("chat", ttft_s=ttft_s / 0.8 * 0.999)), backend),
        "miss its own target",
    )


def test_open_lists_who_may_and_soonest_who_has_most_free() -> None:
    free, full = view("a", 0, context_tokens=10.0), view("b", 1, in_flight=256)
    assert gate().open(entry(), [free, full], Limits(), 0.0) == [free]
    assert gate().soonest([free, full]) is full
    assert gate().soonest([view("c", 1), view("d", 0)]).spec.name == "d"


def test_a_glance_opens_what_a_close_look_opens() -> None:
    """``open`` looks closely only at those that a glance does not clear: never another answer."""
    rng = random.Random(3)
    opened = looked = 0
    for _ in range(300):
        judge = gate()
        backends = [
            view(
                f"b{n}",
                n,
                in_flight=rng.choice([0, 1, 20, 255, 256]),
                context_tokens=rng.choice([0.0, 50_000.0, 93_950.0, 93_951.0, 94_000.0]),
                prefilling=1,
                pending_prefill_tokens=rng.choice([0, 500, 2_000, 8_000]),
                prefill_since_s=0.0,
                signals=EngineSignals(0.0, prefix_hit_ratio=rng.choice([None, 0.0, 0.9])),
            )
            for n in range(6)
        ]
        for backend in backends:
            if rng.random() < 0.5:
                judge.sent(backend, rng.choice([2_000, 20_000]), 0.0)
        slo = rng.choice([BULK, Slo("chat", ttft_s=rng.uniform(0.05, 1.0)), Slo("job", e2e_s=1.9)])
        one = entry(slo, arrival_s=-rng.choice([0.0, 0.1, 0.5]))
        limits = Limits(
            tpot_s=rng.choice([math.inf, rng.uniform(0.01, 0.08)]),
            ttft_s=rng.choice([math.inf, rng.uniform(0.1, 2.0)]),
            share=rng.choice([1.0, 0.9, 0.5]),
        )
        for now in (0.0, rng.choice([0.1, 1.0])):
            close = [b for b in backends if not judge.obstacle(one, b, limits, now)]
            assert judge.open(one, backends, limits, now) == close
            opened, looked = opened + len(close), looked + len(backends)
    assert 0.1 < opened / looked < 0.9, "both answers must occur"
