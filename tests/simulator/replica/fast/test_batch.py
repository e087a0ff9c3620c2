"""The closed forms of a decode batch against counting."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from simulator.replica.fast.batch import DecodeBatch, Member
from simulator.replica.fast.run import elapsed_until, iteration_at
from simulator.replica.job import Job

contexts = st.lists(st.integers(1, 90), min_size=1, max_size=12)
blocks = st.sampled_from([1, 4, 16])


def batch_of(lengths: list[int], block_tokens: int, remaining: int = 1_000) -> DecodeBatch:
    batch = DecodeBatch(block_tokens)
    batch.iteration = 37  # the phase of the counter must not matter
    for number, context in enumerate(lengths):
        member = Member(Job(str(number), context, remaining), 0.0)
        member.blocks = -(-(context - 1) // block_tokens)
        batch.join(member, context)
    return batch


def count_growth(lengths: list[int], block_tokens: int, iterations: int) -> int:
    """Blocks of all members after ``iterations`` minus the blocks before."""
    before = sum(-(-(context - 1) // block_tokens) for context in lengths)
    after = sum(-(-(context - 1 + iterations) // block_tokens) for context in lengths)
    return after - before


@given(contexts, blocks, st.integers(0, 100))
def test_growth_counts_the_blocks_that_iterations_take(
    lengths: list[int], unit: int, steps: int
) -> None:
    batch = batch_of(lengths, unit)
    assert batch.growth(steps) == count_growth(lengths, unit, steps)
    assert batch.next_growth() == batch.growth(1) == batch.growth_at(0)
    assert batch.growth_at(steps) == batch.growth(steps + 1) - batch.growth(steps)
    assert sum(batch.grows(member) for member in batch.members) == batch.growth(1)


@given(contexts, blocks, st.integers(0, 100), st.integers(1, 80))
def test_furthest_is_the_last_number_of_iterations_that_fits(
    lengths: list[int], unit: int, free: int, wanted: int
) -> None:
    steps = batch_of(lengths, unit).furthest(free, wanted)
    assert count_growth(lengths, unit, steps) <= free
    assert steps == wanted or count_growth(lengths, unit, steps + 1) > free


@given(contexts, st.integers(0, 50))
def test_context_grows_by_one_token_per_member_and_iteration(
    lengths: list[int], steps: int
) -> None:
    batch = batch_of(lengths, 16)
    batch.iteration += steps
    assert batch.context == sum(lengths) + steps * len(lengths)


def test_members_end_in_order_of_admission() -> None:
    batch = DecodeBatch(16)
    members = [Member(Job(str(n), 10, 10), 0.0) for n in range(3)]
    for member, remaining in zip(members, (5, 3, 5), strict=True):
        member.remaining = remaining
        batch.join(member, 11)
    assert batch.until_next_end() == 3
    batch.iteration += 3
    assert batch.ended() == [members[1]]
    batch.iteration += 2
    assert batch.ended() == [members[0], members[2]]
    assert (batch.count, batch.base_sum) == (0, 0)


def test_a_member_that_left_or_ends_earlier_is_not_counted_at_its_old_end() -> None:
    batch = DecodeBatch(16)
    gone, early, last = (Member(Job(str(n), 10, 10), 0.0) for n in range(3))
    for member, remaining in ((gone, 2), (early, 4), (last, 9)):
        member.remaining = remaining
        batch.join(member, 11)
    batch.leave(gone)
    batch.end_at(early, 1)
    assert batch.until_next_end() == 1
    batch.iteration += 1
    assert batch.ended() == [early]
    assert batch.until_next_end() == 8


@given(
    st.floats(1e-3, 1.0),
    st.one_of(st.just(0.0), st.floats(1e-12, 1e-2)),
    st.floats(0.0, 50.0),
)
def test_iteration_at_inverts_elapsed_until(first: float, increment: float, now: float) -> None:
    step = iteration_at(now, first, increment)
    assert elapsed_until(step, first, increment) > now
    assert step == 1 or elapsed_until(step - 1, first, increment) <= now


@given(st.floats(1e-3, 1.0), st.floats(0.0, 1e-2), st.integers(0, 60))
def test_elapsed_until_sums_the_iterations(first: float, increment: float, steps: int) -> None:
    summed = sum(first + number * increment for number in range(steps))
    assert abs(elapsed_until(steps, first, increment) - summed) < 1e-9
