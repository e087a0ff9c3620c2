"""Least added pain, bound late. 1,000 tokens in and 100 out, unless a test says otherwise.

Before anything has finished, the tails are taken to be 3 s of TTFT and 40 s of E2E.
"""

from __future__ import annotations

import math
import random
from dataclasses import replace
from typing import Any, ClassVar

import pytest

from router.domain.protocols import DispatchListener, Hold, Observer, Queues, Taken
from router.domain.request import LengthForecast
from router.domain.state import BackendView
from router.policies.motley import Motley
from router.policies.tail_scale import TailScale
from tests.fakes import FAST, SLOW, ask, make_dispatcher, outcome, spec, view, views
from tests.router.policies.picking import awaited, crowd, picked, policy_of, scores

REQUEST = ask(forecast=100.0)
TTFT98_S, E2E98_S = 3.0, 40.0
HELD = 1_050 * 1e-6  # seconds per iteration to read one such request's context, when it is fast


def own_pain(ttft: float, tau: float) -> float:
    """Lengths have no spread here: a forecast without a square is taken at its word."""
    late, long = ttft / TTFT98_S, (ttft + 100 * tau) / E2E98_S
    # The forecast 90th percentile is 200 tokens, the spread the least there is: sigma 0.1.
    z = 1.2816 + math.log((E2E98_S - ttft) / tau / 200) / 0.1
    beyond = 1 / (1 + math.exp(1.702 * z)) if z < 20 else 0.0
    # A percentile of 0.98 moves by P / (3.5 * 0.02); (E / E98)^2 is 0.2 on average: 2 * 0.2 / 0.07.
    # TTFT is a part of E2E: where it is a quarter, it counts 5 times.
    worth = 0.2 / 0.26 * (1.0 + 4.0 * TTFT98_S / (0.25 * E2E98_S))
    return 0.15 * worth * late**4 + long**2 + 0.4 / 0.07 * beyond


def fast_pain(n: int, price: float = 0.0) -> float:
    """The formula at the top of ``motley.py``, on a fast backend with a crowd of n."""
    share = 0.010 + n * 0.0002 + n * HELD
    ttft = share * (1.5 if n else 1.0) + 1_000 * (0.0001 + share / 2_048)
    tau = 0.010 + (n + 1) * 0.0002 + (n + 1) * HELD
    pain = own_pain(ttft, tau)
    inflicted = 0.1 * n + (0.0002 + HELD) * 50 * n
    theirs = 0.0 + 50 * tau  # arrived now, and half of 100 tokens to come
    crowding = tau / 0.0102
    pain += crowding * 2 * theirs * inflicted / E2E98_S**2
    engine = 0.1 + 100 * (0.0002 + HELD + 0.010 / (n + 1))
    return pain + 2 * (ttft + 100 * tau) * price * engine / E2E98_S**2


def slow_pain() -> float:
    """On an idle slow backend."""
    ttft = 0.030 + 1_000 * (0.0005 + 0.030 / 2_048)
    return own_pain(ttft, 0.030 + 0.0010 + 1_050 * 5e-6)


@pytest.mark.parametrize(("n", "chosen"), [(0, "fast"), (10, "fast"), (11, "slow")])
def test_the_fast_card_is_filled_until_the_slow_one_adds_less_pain(n: int, chosen: str):
    assert scores({"fast": fast_pain(n), "slow": slow_pain()}) == chosen
    fleet = views(fast=crowd(n), slow={"cost": SLOW})
    assert picked(policy_of("motley"), fleet, REQUEST) == chosen


@pytest.mark.parametrize(("price", "chosen"), [(5.0, "fast"), (6.0, "slow")])
def test_a_price_on_the_fast_group_sends_requests_to_the_slow_one(price: float, chosen: str):
    assert scores({"fast": fast_pain(0, price), "slow": slow_pain()}) == chosen
    fleet = views(fast={"price": price}, slow={"cost": SLOW})
    assert picked(policy_of("motley", price_weight=1.0), fleet, REQUEST) == chosen
    assert picked(policy_of("motley"), fleet, REQUEST) == "fast", "told to, and not otherwise"


class TestLateBinding:
    def backlog(self, prompt: int) -> dict[str, Any]:
        """One prompt being prefilled since 0: 0.1 ms a token, two iterations' worth of 10 ms."""
        return {
            "in_flight": 1,
            "prefilling": 1,
            "pending_prefill_tokens": prompt,
            "prefill_since_s": 0.0,
        }

    @pytest.mark.parametrize(("at", "taken"), [(0.0, False), (0.11, False), (0.13, True)])
    def test_a_backlog_of_more_than_0_3_s_is_waited_for(self, at: float, taken: bool):
        # 4,000 tokens: 0.4 s, and 4,000 / 2,048 + 1 iterations of 10 ms: 0.43 s in all.
        fleet = views(a=self.backlog(4_000))
        chosen = policy_of("motley").choose(REQUEST, fleet, at)
        assert (chosen is not None) == taken

    def test_one_that_can_begin_soon_is_taken_instead_even_if_it_is_slow(self):
        fleet = views(fast=self.backlog(4_000), slow={"cost": SLOW})
        hasty = policy_of("motley", hold_margin=1e9)
        assert picked(hasty, fleet, REQUEST) == "slow"
        assert picked(policy_of("motley", backlog_s=0.5), fleet, REQUEST) == "fast"

    def test_but_a_far_worse_one_is_not_taken_while_a_better_one_is_about_to_be_free(self):
        fleet = views(fast=self.backlog(4_000), slow={"cost": SLOW})
        assert awaited(policy_of("motley"), fleet, REQUEST) == "fast"

    @pytest.mark.parametrize(("held", "taken"), [(89_000.0, True), (89_001.0, False)])
    def test_kv_beyond_nine_tenths_is_not_touched(self, held: float, taken: bool):
        fleet = views(a=crowd(1, context_tokens=held))
        chosen = policy_of("motley").choose(REQUEST, fleet, 0.0)
        assert (chosen is not None) == taken

    def test_an_idle_engine_takes_any_prompt(self):
        assert picked(policy_of("motley"), views(a={}), ask(prompt_tokens=99_999)) == "a"

    def test_an_engine_at_its_limit_of_sequences_takes_nothing(self):
        full = views(a=crowd(256, context_tokens=0.0))
        assert policy_of("motley").choose(REQUEST, full, 0.0) is None


class TestWaitingForOne:
    """A prompt of 30,000 tokens: 3.4 s on the fast card, 17 s on the slow one, which is free."""

    LONG = ask("long", prompt_tokens=30_000, forecast=1.0)

    def test_who_lacks_room_for_it_is_waited_for_if_there_will_be_some_soon(self):
        # It lacks a quarter of what is held, so a quarter of the answers have to end: 0.3 s.
        held = {"context_tokens": 80_000.0, "pending_output_tokens": 40.0}
        fleet = views(fast=crowd(4, **held), slow={"cost": SLOW})
        assert awaited(policy_of("motley"), fleet, self.LONG) == "fast"

    def test_but_not_if_that_will_take_as_long_as_the_slow_one(self):
        held = {"context_tokens": 80_000.0, "pending_output_tokens": 4 * 1_000.0}
        fleet = views(fast=crowd(4, **held), slow={"cost": SLOW})
        assert picked(policy_of("motley"), fleet, self.LONG) == "slow"

    @pytest.mark.parametrize(("left", "waits"), [(50.0, True), (5_000.0, False)])
    def test_one_that_is_admitted_only_when_all_others_are_gone_waits_for_that(self, left, waits):
        # 90,001 tokens are more than nine tenths of the KV: 5,000 tokens to come take 57 s.
        fleet = views(fast=crowd(1, pending_output_tokens=left), slow={"cost": SLOW})
        prompt = ask(prompt_tokens=90_001, forecast=1.0)
        chosen = policy_of("motley").choose(prompt, fleet, 0.0)
        assert isinstance(chosen, Hold) == waits

    def choose(self, ahead: Taken, slow: BackendView) -> BackendView | Hold | None:
        policy = policy_of("motley")
        assert isinstance(policy, Queues)
        return policy.choose_or_queue(self.LONG, [slow], [ahead], 0.0)

    def test_it_queues_behind_those_who_wait_for_the_fast_one(self):
        fast, slow = views(fast={}, slow={"cost": SLOW})
        chosen = self.choose(Taken(fast, 3.4, 30_000), slow)
        assert isinstance(chosen, Hold)
        assert chosen.backend is fast
        assert chosen.prefill_s == pytest.approx(3.15, abs=0.01), "so long those behind it wait"

    @pytest.mark.parametrize("ahead_s", [15.0, math.inf])
    def test_but_not_behind_too_many_or_nobody_knows_how_many(self, ahead_s: float):
        fast, slow = views(fast={}, slow={"cost": SLOW})
        assert self.choose(Taken(fast, ahead_s, 150_000), slow) is slow


class TestWhatIsLateTells:
    """A prefill that should be over and is not: 1,000 tokens, 0.12 s, sent at 0."""

    SENT: ClassVar[dict[str, Any]] = {
        "in_flight": 1,
        "prefilling": 1,
        "pending_prefill_tokens": 1_000,
    }

    @pytest.mark.parametrize(("at", "taken"), [(0.2, True), (0.4, True), (0.5, False)])
    def test_who_is_overdue_by_more_than_the_backlog_allowed_gets_nothing_more(
        self, at: float, taken: bool
    ):
        chosen = policy_of("motley").choose(ask(arrival_s=at), views(a=self.SENT), at)
        assert (chosen is not None) == taken

    def test_an_engine_that_stopped_admitting_is_not_filled_that_far_again(self):
        """40,000 of 100,000 tokens held, and a prefill 2 s late: 36,000 is the limit from then."""
        policy = policy_of("motley")
        full = views(a={**self.SENT, "in_flight": 40, "context_tokens": 40_000.0})
        assert policy.choose(ask(arrival_s=2.0), full, 2.0) is None
        full[0].prefilling = full[0].pending_prefill_tokens = 0
        full[0].version += 1
        assert policy.choose(ask(arrival_s=3.0), full, 3.0) is None
        full[0].context_tokens, full[0].version = 34_000.0, 2
        assert policy.choose(ask(arrival_s=4.0), full, 4.0) is not None

    def test_and_tries_again_little_by_little(self):
        policy = policy_of("motley")
        full = views(a={**self.SENT, "in_flight": 40, "context_tokens": 40_000.0})
        policy.choose(ask(arrival_s=2.0), full, 2.0)
        full[0].prefilling = full[0].pending_prefill_tokens = 0
        for _ in range(1_000):  # changes of state without trouble
            full[0].version += 1
            chosen = policy.choose(ask(arrival_s=3.0), full, 3.0)
        assert chosen is not None


@pytest.mark.parametrize(("p90", "chosen"), [(150.0, "slow"), (400.0, "fast")])
def test_a_card_on_which_many_would_be_among_the_slowest_is_spared(p90: float, chosen: str):
    """The same mean of 100 tokens, and more or fewer long answers; slow: 40 s are 1,087 tokens."""
    fleet = views(fast=crowd(14), slow={"cost": SLOW})
    wide = LengthForecast(100.0, p90, square_tokens=12_000.0)
    assert picked(policy_of("motley"), fleet, replace(REQUEST, forecast=wide)) == chosen


def test_whoever_is_old_or_has_much_to_come_is_not_to_be_slowed():
    """Two backends alike but for what their crowds are heading for."""
    at = 60.0
    young = crowd(8, arrivals_s=8 * 59.0)
    fleet = views(old=crowd(8, arrivals_s=8 * 1.0), young=young)
    assert picked(policy_of("motley"), fleet, ask(forecast=100.0, arrival_s=at), at) == "young"
    fleet = views(long=crowd(8, pending_output_tokens=8 * 900.0, arrivals_s=8 * 59.0), young=young)
    assert picked(policy_of("motley"), fleet, ask(forecast=100.0, arrival_s=at), at) == "young"


def test_a_cached_prefix_is_not_computed_again():
    policy = policy_of("motley")
    request = ask(forecast=100.0, prefix_hashes=(1, 2, 3), prefix_block_tokens=300)
    a, b = views(a={}, b={})
    assert policy.dispatched(request, a, 0.0) == 0
    # Somewhat busier, and 900 of 1,000 tokens less to do; a minute later its prefill is forgotten.
    a.in_flight = a.decoding = 1
    a.context_tokens, a.version = 100.0, 1
    assert picked(policy, [a, b], request, now=60.0) == "a"
    assert picked(policy, [a, b], REQUEST, now=120.0) == "b"


CHAT = ask(forecast=100.0, prefix_hashes=(1, 2, 3), prefix_block_tokens=300)


def test_an_engine_that_never_finds_what_it_should_have_cached_gets_no_credit():
    """An old engine without prefix caching, or one that was restarted behind our back."""
    policy = policy_of("motley")
    a, b = views(a={}, b={})
    assert isinstance(policy, DispatchListener)
    assert isinstance(policy, Observer)
    policy.dispatched(CHAT, a, 0.0)
    granted = []
    for n in range(30):
        turn = replace(CHAT, request_id=f"r{n}")
        granted.append(policy.dispatched(turn, a, 0.0))
        policy.observe(outcome("a", request_id=f"r{n}", cached_tokens=0))
    assert granted[0] == 900
    assert granted[-1] < 60
    for n in range(60):  # its cache works now
        policy.dispatched(replace(CHAT, request_id=f"s{n}"), a, 0.0)
        policy.observe(outcome("a", request_id=f"s{n}", cached_tokens=900))
    assert policy.dispatched(CHAT, a, 0.0) > 850
    assert policy.dispatched(replace(CHAT, request_id="other"), b, 0.0) == 0


def test_a_burst_does_not_follow_its_prefix_to_an_engine_that_keeps_none():
    policy = policy_of("motley")
    a, b = views(a={"prefix_caching": False}, b={})
    assert policy.dispatched(CHAT, a, 0.0) == 0
    a.in_flight = a.decoding = 1
    a.context_tokens, a.version = 100.0, 1
    assert policy.dispatched(replace(CHAT, request_id="next"), a, 60.0) == 0
    assert picked(policy, [a, b], CHAT, now=120.0) == "b"


def test_what_left_or_fell_ill_is_forgotten_prefixes_and_all():
    dispatcher = make_dispatcher("a", "b", policy=policy_of("motley"))
    for n, name in enumerate(("a", "b")):
        dispatcher.set_health("b" if name == "a" else "a", healthy=False, now=0.0)
        dispatcher.dispatch(replace(CHAT, request_id=name), float(n))
        dispatcher.set_health("b" if name == "a" else "a", healthy=True, now=0.0)
    policy = dispatcher._policy
    assert isinstance(policy, Motley)
    # Each was forgotten when it fell ill, so only the last one served is known.
    assert policy._index.holders((1,)) == {"b"}
    dispatcher.remove_backend("b", 3.0)
    assert policy._index.holders((1,)) == set()
    assert [lane.view.spec.name for lane in policy._book._lanes.values()] == []


def test_recent_prefill_stretches_decoding_so_equals_take_turns():
    policy = policy_of("motley")
    fleet = views(a={}, b={}, c={})
    chosen = []
    for n in range(3):
        view = policy.choose(REQUEST, fleet, 0.01 * n)
        policy.dispatched(REQUEST, view, 0.01 * n)
        chosen.append(view.spec.name)
    assert sorted(chosen) == ["a", "b", "c"]


def test_a_backend_that_came_back_under_its_old_name_is_another_one():
    policy = policy_of("motley")
    picked(policy, views(a={}, b={"cost": SLOW}), REQUEST)
    back = [view("b", 1, SLOW), view("a", 2, SLOW.scaled(prefill=9.0, decode=9.0))]
    assert picked(policy, back, REQUEST, now=100.0) == "b"


def test_of_many_alike_it_looks_at_some_and_at_all_when_those_are_full():
    fleet = [view(f"a{n}", n, **crowd(256)) for n in range(600)]
    fleet[371] = view("idle", 371)
    assert picked(policy_of("motley"), fleet, REQUEST) == "idle"


def test_the_regret_of_looking_at_some_is_bounded():
    """Of 512 alike every fourth is looked at: the choice's expected rank is about the fourth."""
    draw = random.Random(5)
    fleet = [
        view(f"a{n}", n, **crowd(8, context_tokens=draw.uniform(1_000.0, 50_000.0)))
        for n in range(512)
    ]
    told = policy_of("motley").explain(REQUEST, fleet, 0.0)  # type: ignore[attr-defined]
    pains = {name: score.score for name, score in told.items()}
    chosen = [pains[picked(policy_of("motley", seed), fleet, REQUEST)] for seed in range(200)]
    ranks = [sum(pain < one for pain in pains.values()) for one in chosen]
    assert sum(ranks) / len(ranks) < 4
    assert max(ranks) < 32  # all that are better are missed with (3 / 4)^32: once in 10,000
    assert sum(chosen) / len(chosen) < 1.1 * min(pains.values())


@pytest.mark.parametrize("blocks", [1, 12])
def test_the_regret_of_scoring_some_of_many_holders_is_bounded(blocks: int):
    """A system prompt that all 64 share, and ``blocks`` of the conversation on some of them."""
    shared, talk = tuple(range(4)), tuple(range(100, 100 + blocks))
    draw = random.Random(7)
    chosen, best = 0.0, 0.0
    for _ in range(60):
        policy = policy_of("motley", draw.randrange(1000))
        fleet = [
            view(
                f"{gpu}-{n}",
                n,
                cost,
                spec=spec(f"{gpu}-{n}", gpu=gpu),
                **crowd(draw.randrange(30), prefilling=0),
            )
            for n, (gpu, cost) in enumerate([("a100-80", FAST), ("t4", SLOW)] * 32)
        ]
        for one in fleet:
            held = shared + talk[: draw.choice((0, 0, 0, 0, blocks // 2, blocks))]
            policy.hint(one, held, 60)  # type: ignore[attr-defined]
        turn = ask(forecast=100.0, prefix_hashes=shared + talk, prefix_block_tokens=60)
        told = policy.explain(turn, fleet, 0.0)  # type: ignore[attr-defined]
        chosen += told[picked(policy, fleet, turn)].score
        best += min(score.score for score in told.values())
    assert chosen < 1.02 * best


def test_of_many_holders_few_are_scored():
    policy = policy_of("motley")
    assert isinstance(policy, Motley)
    fleet = [view(f"a{n}", n, **crowd(n % 7)) for n in range(64)]
    turn = ask(forecast=100.0, prefix_hashes=(1, 2, 3), prefix_block_tokens=300)
    for one in fleet:
        policy.hint(one, turn.prefix_hashes, 300)
    free, _ = policy._book.shortlist(fleet, turn, 0.0)
    assert len(free) == 2


GPUS = ("a100-40", "a100-80", "v100-32", "t4", "l4", "a10g", "h100")


@pytest.mark.parametrize("seed", range(20))
def test_whoever_is_above_the_least_so_far_need_not_be_scored_to_the_end(seed: int):
    """However they come, the one with the least whole pain is chosen."""
    draw = random.Random(seed)
    fleet = [
        view(
            gpu,
            index,
            FAST.scaled(prefill=draw.uniform(0.3, 5), decode=draw.uniform(0.3, 5)),
            spec=spec(gpu, gpu=gpu),
            **crowd(draw.randrange(60)),
        )
        for index, gpu in enumerate(GPUS)
    ]
    policy = policy_of("motley")
    told = policy.explain(REQUEST, fleet, 0.0)  # type: ignore[attr-defined]
    expected = scores({name: score.score for name, score in told.items()})
    assert {picked(policy, fleet, REQUEST) for _ in range(10)} == {expected}


def test_an_explanation_counts_the_time_waited_so_far():
    fleet, policy = [view("a", 0, **crowd(2))], policy_of("motley")
    come, waiting = (ask(forecast=100.0, arrival_s=arrival_s) for arrival_s in (50.0, 20.0))
    now, before = (
        policy.explain(one, fleet, 50.0)["a"]  # type: ignore[attr-defined]
        for one in (come, waiting)
    )
    assert now.terms["ttft"] < before.terms["ttft"]
    assert now.terms["externality"] == pytest.approx(before.terms["externality"])


def test_a_price_that_has_no_weight_is_in_no_explanation():
    told = policy_of("motley").explain(  # type: ignore[attr-defined]
        REQUEST, views(free=crowd(2), dear={**crowd(2), "price": 3.0}), 0.0
    )
    assert told["free"] == told["dear"]
    assert told["dear"].terms["price"] == 0.0


def test_an_explanation_has_what_is_not_weighed_in_no_term():
    fleet = [view("a", 0, **crowd(2))]
    bare = policy_of("motley", ttft_weight=0.0, externality=0.0, overshoot_weight=0.0)
    alone = bare.explain(REQUEST, fleet, 0.0)["a"]  # type: ignore[attr-defined]
    whole = policy_of("motley").explain(REQUEST, fleet, 0.0)["a"]  # type: ignore[attr-defined]
    rest = {"ttft": 0.0, "overshoot": 0.0, "externality": 0.0, "price": 0.0}
    assert alone.terms == {"e2e": whole.terms["e2e"], **rest}
    assert whole.score == pytest.approx(sum(whole.terms.values()))
    assert whole.terms["ttft"] > 0.0 < whole.terms["externality"]


def test_an_explanation_says_of_whom_nothing_can_be_had_now_and_why():
    busy = {"prefilling": 1, "in_flight": 1, "pending_prefill_tokens": 9_000}
    fleet = views(free=crowd(2), full=crowd(2, context_tokens=99_000.0), busy=busy)
    told = policy_of("motley").explain(REQUEST, fleet, 0.0)  # type: ignore[attr-defined]
    assert told["free"].note == ""
    assert told["full"].note == "has no KV room or no free sequence for it"
    assert told["busy"].note == "busy: 0.95 s of prefill before it"
    told = policy_of("motley").explain(REQUEST, fleet, 1.4)  # type: ignore[attr-defined]
    assert told["busy"].note.endswith("it should have begun by now")


def test_a_backend_is_ranked_once_another_of_its_kind_comes():
    alone = view("a", 0, **crowd(30))
    policy = policy_of("motley")
    assert picked(policy, [alone], REQUEST) == "a"
    assert picked(policy, [alone, view("b", 1, **crowd(2))], REQUEST) == "b"
    mates = [alone, view("b", 1, **crowd(2)), view("c", 2, **crowd(40)), view("d", 3, **crowd(1))]
    assert picked(policy, mates, REQUEST) == "d"


class TestTailScale:
    def test_finds_the_98th_percentile(self):
        scale = TailScale()
        for n in range(20_000):
            seconds = 0.01 * (n * 37 % 1_000 + 1)  # uniform on 0.01 to 10 s
            scale.observe(outcome(first_token_s=seconds, finished_s=2 * seconds))
        # 9.8 s; 2% of steps go up by 10%, so it hovers within that.
        assert scale.ttft_s == pytest.approx(9.8, rel=0.1)
        assert scale.e2e_s == pytest.approx(19.6, rel=0.1)

    @pytest.mark.parametrize(
        "said", [outcome(status="failed"), outcome(first_token_s=None), outcome(status="cancelled")]
    )
    def test_only_what_was_delivered_counts(self, said: Any):
        scale = TailScale()
        scale.observe(said)
        assert (scale.ttft_s, scale.e2e_s) == (TTFT98_S, E2E98_S)

    def test_ranks_the_first_ones_exactly_so_that_a_wrong_guess_does_no_harm(self):
        scale = TailScale()
        for n in range(100):
            scale.observe(outcome(first_token_s=0.01 * (n + 1), finished_s=0.02 * (n + 1)))
        assert (scale.ttft_s, scale.e2e_s) == pytest.approx((0.99, 1.98))

    def test_never_reaches_zero(self):
        scale = TailScale()
        for _ in range(100_000):
            scale.observe(outcome(first_token_s=0.0, finished_s=0.0))
        assert min(scale.ttft_s, scale.e2e_s) > 0.0

    def test_the_choice_follows_the_shape_of_the_latencies_not_their_size(self):
        """What was delivered sets the scale of both, so there is nothing to tune."""
        fleet = views(fast=crowd(12), slow={"cost": SLOW})
        for first_s, chosen in ((50.0, "slow"), (0.5, "fast")):  # half a second on the slow one
            policy = policy_of("motley")
            assert picked(policy, fleet, REQUEST) == "slow"
            assert isinstance(policy, Observer)
            for _ in range(500):
                policy.observe(outcome(first_token_s=first_s, finished_s=500.0))
            assert picked(policy, fleet, REQUEST) == chosen
