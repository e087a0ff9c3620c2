"""The order of the steps: no model is ever left without a ready replica (I10)."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router.gateway.placement.adapter import PlacementError
from router.gateway.placement.carry_out import CarryOut
from tests.router.gateway.placement.fleet import FakeFleet, spec

A, B, C = "llama-3.1-8b", "llama-3.2-3b", "llama-3.2-1b"


def group(model: str, gpu: str = "t4") -> str:
    return f"{gpu}/vllm/{model}"


def carry_out(fleet: FakeFleet, timeout_s: float = 5.0) -> CarryOut:
    return CarryOut(
        fleet, fleet, ready_timeout_s=timeout_s, drain_timeout_s=timeout_s, look_s=0.001
    )


def two_slots(*running: str) -> FakeFleet:
    specs = [spec(f"{m[-2:]}{n}", m, f"s{n}") for n in range(2) for m in (A, B)]
    return FakeFleet(specs, running)


async def test_free_cards_are_used_before_anything_is_taken_away() -> None:
    fleet = two_slots("8b0")
    steps = await carry_out(fleet).run({group(B): 1})
    assert fleet.log == ["start 3b1"]
    assert [(step.kind, bool(step.failure)) for step in steps] == [("start", False), ("stop", True)]
    assert "without a ready replica" in steps[-1].failure


async def test_a_swap_stops_one_of_two_and_starts_the_other_model() -> None:
    fleet = two_slots("8b0", "8b1")
    steps = await carry_out(fleet).run({group(A): 1, group(B): 1})
    assert [step.kind for step in steps] == ["stop", "start"]
    assert not any(step.failure for step in steps)
    assert Counter(state.spec.model for state in fleet.backends()) == {A: 1, B: 1}
    assert not fleet.dark


async def test_the_last_ready_engine_of_a_model_stays_whatever_the_plan_says() -> None:
    fleet = two_slots("8b0", "3b1")
    steps = await carry_out(fleet).run({group(A): 2})
    assert fleet.log == []
    assert {state.spec.name for state in fleet.backends()} == {"8b0", "3b1"}
    assert {step.failure for step in steps} == {
        "no free cards",
        "would leave its model without a ready replica",
    }


async def test_an_ill_replica_does_not_count_as_ready() -> None:
    """It keeps its cards, and the one that is well is the last of its model."""
    fleet = two_slots("8b0", "8b1")
    fleet.states["8b1"].healthy = False
    await carry_out(fleet).run({group(A): 1, group(B): 1})
    assert set(fleet.states) == {"8b0", "8b1"}
    assert not fleet.dark


async def test_requests_are_served_to_the_end_first() -> None:
    fleet = two_slots("8b0", "8b1")
    for state in fleet.states.values():
        state.in_flight = 2
    busy = fleet.states["8b1"]

    async def finish() -> None:
        await asyncio.sleep(0.05)
        assert fleet.log == []
        for state in fleet.states.values():
            state.in_flight = 0

    finishing = asyncio.create_task(finish())
    await carry_out(fleet).run({group(A): 1, group(B): 1})
    await finishing
    assert len(fleet.log) == 2
    assert busy.in_flight == 0


async def test_what_will_not_start_ends_the_run() -> None:
    fleet = two_slots("8b0", "8b1")
    fleet.refuses = {"3b0", "3b1"}
    steps = await carry_out(fleet).run({group(B): 2})
    assert [step.kind for step in steps] == ["stop", "start"]
    assert "would not start" in steps[-1].failure
    assert len(fleet.states) == 1
    assert not fleet.dark


async def test_what_was_done_is_told_even_if_it_cannot_be_noted_that_it_is_over(
    caplog: pytest.LogCaptureFixture,
) -> None:
    fleet = two_slots("8b0")

    async def forbidden() -> None:
        raise PlacementError("may not")

    fleet.finish = forbidden  # type: ignore[method-assign]
    steps = await carry_out(fleet).run({group(A): 1, group(B): 1})
    assert [(step.kind, step.failure) for step in steps] == [("start", "")]
    assert "may not" in caplog.text


async def test_a_run_is_announced_before_its_first_step_and_over_after_its_last() -> None:
    fleet = two_slots("8b0")
    begun: list[int] = []
    start = fleet.start

    async def watched(*arguments: Any) -> Any:
        begun.append(fleet.begun)
        return await start(*arguments)

    fleet.start = watched  # type: ignore[method-assign]
    await carry_out(fleet).run({group(A): 1, group(B): 1})
    assert begun == [1]
    assert fleet.begun == 0


async def test_what_does_not_empty_is_told() -> None:
    fleet = two_slots("8b0", "8b1")
    for state in fleet.states.values():
        state.in_flight = 1
    steps = await carry_out(fleet, timeout_s=0.02).run({group(A): 1})
    assert steps[-1].failure == "1 requests would not end"
    assert fleet.log == []


@settings(max_examples=150, deadline=None)
@given(
    slots=st.lists(st.sets(st.sampled_from([A, B, C]), min_size=1), min_size=1, max_size=5),
    data=st.data(),
)
def test_no_model_ever_goes_dark(slots: list[set[str]], data: st.DataObject) -> None:
    """Whatever runs and whatever is wanted, at no moment and also with engines that refuse."""
    specs = [spec(f"{m}-{n}", m, f"s{n}") for n, models in enumerate(slots) for m in sorted(models)]
    running = []
    for n, models in enumerate(slots):
        chosen = data.draw(st.sampled_from([None, *sorted(models)]), label=f"running in {n}")
        running += [f"{chosen}-{n}"] if chosen else []
    fleet = FakeFleet(specs, running)
    fleet.refuses = data.draw(st.sets(st.sampled_from([s.name for s in specs]), max_size=2))
    wanted = {
        group(model): data.draw(st.integers(0, 3), label=f"wanted of {model}")
        for model in (A, B, C)
    }
    asyncio.run(carry_out(fleet).run(wanted))
    assert not fleet.dark


@settings(max_examples=60, deadline=None)
@given(counts=st.tuples(st.integers(1, 3), st.integers(1, 3)), other=st.integers(1, 3))
def test_a_placement_that_fits_is_reached(counts: tuple[int, int], other: int) -> None:
    """Where every slot holds every model and every model keeps a replica."""
    total = sum(counts)
    specs = [spec(f"{m}-{n}", m, f"s{n}") for n in range(total) for m in (A, B)]
    first = [f"{A}-{n}" for n in range(counts[0])] + [f"{B}-{n}" for n in range(counts[0], total)]
    fleet = FakeFleet(specs, first)
    wanted_a = min(other, total - 1)
    asyncio.run(carry_out(fleet).run({group(A): wanted_a, group(B): total - wanted_a}))
    found = Counter(state.spec.model for state in fleet.backends())
    assert found == {A: wanted_a, B: total - wanted_a}
    assert not fleet.dark
