"""What was learned, as a document: everything comes back, and nothing else is believed."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.domain.errors import LearnedError
from router.domain.fleet import BackendSpec
from router.domain.state import LinearCost
from router.perf.length import BucketLengthPredictor
from router.perf.length_kept import LengthCell
from telemetry.drift import Level
from telemetry.learned import (
    MOST_BUCKET,
    MOST_CELLS,
    MOST_KNOWN,
    MOST_NAME,
    VERSION,
    Learned,
    decode,
    encode,
)
from telemetry.log_filter import FilterState, LogFilter
from telemetry.speeds import Speed, card_of

COST = LinearCost(step_s=0.01, prefill_s=8e-5, seq_s=2e-5, context_s=7.6e-8, pair_s=6e-9)
SEEN = FilterState(
    [0.1, -0.2, 0.3], [[0.1, 0, 0], [0, 0.1, 0.01], [0, 0.01, 0.1]], {"prefill": 0.2}
)
SPEED = Speed("e0", "t4/vllm/m", "c", COST, 3.0, 40, SEEN, None, {"decode": Level(0.3, 0.1, 0.2)})
CELL = LengthCell(("m", "", 20, -1), 12.0, 200.5, 400.0, 70_000.0)
LEARNED = Learned(
    "gateway",
    1_700_000_000.0,
    [CELL, LengthCell(("m",), 30.0, 180.0, 390.0, 60_000.0)],
    [SPEED],
    {"m": (8800.0, 2000.0)},
    {"motley": {"ttft_s": 1.5}},
)

positive = st.floats(1e-3, 1e6)
names = st.text(max_size=40)
keys = st.one_of(
    st.tuples(names),
    st.tuples(names, names),
    st.tuples(names, names, st.integers(0, 60)),
    st.tuples(names, names, st.integers(0, 60), st.integers(-1, 40)),
)
cells = st.builds(LengthCell, keys, positive, positive, positive, positive)


@st.composite
def filters(draw: st.DrawFn) -> FilterState:
    """States that a filter came to by learning."""
    learner = LogFilter((1.5, 0.5, 0.4), (0.005, 0.01, 0.01), 2.5, 0.2)
    parts = st.tuples(*[st.floats(1e-4, 10.0)] * 3)
    for base, duration, phase in draw(
        st.lists(st.tuples(parts, st.floats(1e-3, 50.0), st.sampled_from(["prefill", "decode"])))
    ):
        learner.learn(base, duration, phase, 0.0)
    return learner.state()


speeds = st.builds(
    Speed, names, names, names, st.just(COST), st.floats(0, 1e6), st.integers(0, 10**9), filters()
)


@given(
    st.lists(cells, max_size=20),
    st.lists(speeds, max_size=4, unique_by=lambda speed: speed.name),
    st.dictionaries(names, positive.map(lambda tokens: (tokens * 4.0, tokens)), max_size=5),
)
def test_all_of_it_comes_back_as_it_was(
    lengths: list[LengthCell], known: list[Speed], prompts: dict[str, tuple[float, float]]
) -> None:
    learned = Learned("gateway", 1.0, lengths, known, prompts)
    assert decode(encode(learned)) == (learned, [])


def test_it_is_text_that_people_can_read() -> None:
    told = json.loads(encode(LEARNED))
    assert told["motley_learned"] == VERSION
    assert told["speeds"][0]["name"] == "e0"
    assert decode(encode(LEARNED)) == (LEARNED, [])


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "no document"),
        (b"\x00\xff\xfe", "no document"),
        (b"[]", "no document"),
        (b"{}", "motley_learned"),
        (encode(LEARNED)[:-40], "no document"),
        (b'{"motley_learned": 2, "whatever": []}', "newer version"),
        (b'{"motley_learned": 0}', "other version"),
        (b'{"motley_learned": 1, "origin": "hearsay", "written_unix_s": 1}', "hearsay"),
        (b'{"motley_learned": 1, "origin": "gateway", "written_unix_s": -1}', "written at"),
        (b"[" * 100_000, "no document"),
    ],
)
def test_what_is_no_such_document_is_refused(data: bytes, why: str) -> None:
    with pytest.raises(LearnedError, match=why):
        decode(data)


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("lengths", [[["m"], 1.0, "long", 2.0, 3.0]]),
        ("lengths", [[["m"], 1.0, -5.0, 2.0, 3.0]]),
        ("lengths", [[["m"], 0.0, 5.0, 2.0, 3.0]]),
        ("lengths", [[[3], 1.0, 5.0, 2.0, 3.0]]),
        ("lengths", [[["m", "", 20, 500], 1.0, 5.0, 2.0, 3.0]]),
        ("lengths", [[["m" * (MOST_NAME + 1)], 1.0, 5.0, 2.0, 3.0]]),
        ("lengths", [[["m"], 1.0, 1e300, 2.0, 3.0]]),
        ("lengths", [[["m"], 1.0, 5.0, 1e300, 3.0]]),
        ("lengths", [[["m"], 1.0, 5.0, 2.0, -3.0]]),
        ("lengths", [[[], 1.0, 5.0, 2.0, 3.0]]),
        ("lengths", [[["m", "", -2, 5], 1.0, 5.0, 2.0, 3.0]]),
        ("lengths", [[["m"], 1.0, 5.0, 2.0, 3.0]] * (MOST_CELLS + 1)),
        ("lengths", {"m": 3}),
        ("speeds", [{"name": "e0"}]),
        ("speeds", ["fast"]),
        ("prompts", {"m": [0.0, 0.0]}),
        ("prompts", {"m": [1e9, 1.0]}),
        ("prompts", {"m": [0.09, 1.0]}),
        ("prompts", {"m": [1e12, 1e12]}),
        ("prompts", {"m" * (MOST_NAME + 1): [4.0, 1.0]}),
        ("policies", {"motley": {"ttft_s": "slow"}}),
        ("policies", {"motley": {str(n): 1.0 for n in range(100)}}),
    ],
)
def test_one_part_that_makes_no_sense_is_named_and_the_others_are_used(
    part: str, value: object
) -> None:
    content = json.loads(encode(LEARNED)) | {part: value}
    learned, (flaw,) = decode(json.dumps(content).encode())
    assert flaw.startswith(f"{part}: ")
    assert learned == replace(LEARNED, **{part: type(getattr(LEARNED, part))()})


def test_what_is_at_the_edge_of_sense_is_kept() -> None:
    longest = "m" * MOST_NAME
    edges = replace(
        LEARNED,
        lengths=[
            LengthCell((longest, "", -1, MOST_BUCKET), 1e-9, 0.5, 0.5, 0.25),
            LengthCell(("m",), 1.0, 5.0, 2.0, 1e-6),
        ],
        prompts={longest: (0.1, 1.0), "m": (100.0, 1.0)},
        policies={"motley": {str(n): 1.0 for n in range(MOST_KNOWN)}},
    )
    assert decode(encode(edges)) == (edges, [])


@pytest.mark.parametrize(
    "changed",
    [
        replace(SPEED, age_s=-1.0),
        replace(SPEED, durations=-1),
        replace(SPEED, prior=replace(COST, step_s=-0.01)),
        replace(SPEED, factors=replace(SEEN, phi=[0.1, 0.2])),
        replace(SPEED, factors=replace(SEEN, phi=[0.1, 0.2, 90.0])),
        replace(SPEED, factors=replace(SEEN, cov=[[0.1, 0, 0], [0, 0.1, 0.2], [0, 0.2, 0.1]])),
        replace(SPEED, factors=replace(SEEN, cov=[[0.1, 0, 0], [0, 0.1, 0.01], [0, 0, 0.1]])),
        replace(SPEED, factors=replace(SEEN, cov=[[-0.1, 0, 0], [0, 0.1, 0], [0, 0, 0.1]])),
        replace(SPEED, factors=replace(SEEN, noise={"decode": 0.0})),
        replace(SPEED, coefficients=SEEN),
        replace(SPEED, levels={"decode": Level(99.0, 0.0, 0.1)}),
        replace(SPEED, name="n" * (MOST_NAME + 1)),
    ],
)
def test_a_speed_that_no_filter_came_to_is_neither_written_nor_read(changed: Speed) -> None:
    assert decode(encode(replace(LEARNED, speeds=[SPEED, changed])))[0].speeds == [SPEED]
    content = json.loads(encode(LEARNED))
    raw = json.loads(json.dumps(content["speeds"][0]))
    raw |= json.loads(_plain(changed))
    _, flaws = decode(json.dumps(content | {"speeds": [raw]}).encode())
    assert len(flaws) == 1


def _plain(speed: Speed) -> bytes:
    import msgspec

    return msgspec.json.encode(speed)


@given(st.binary(max_size=300), st.integers(0, 2000))
def test_no_damage_to_a_file_is_worse_than_a_cold_start(noise: bytes, at: int) -> None:
    data = encode(LEARNED)
    damaged = data[:at] + noise + data[at + len(noise) :]
    try:
        learned, _ = decode(damaged)
    except LearnedError:
        return
    predictor = BucketLengthPredictor()
    predictor.restore(learned.lengths)
    for cell in predictor.cells():
        assert 0.0 < cell.mean_tokens < math.inf


def test_what_clients_make_up_cannot_make_it_grow() -> None:
    lengths = [replace(CELL, key=("m", f"t{n}", 20, -1)) for n in range(2 * MOST_CELLS)]
    long = replace(CELL, key=("m", "t" * 5000, 20, -1))
    learned, flaws = decode(encode(replace(LEARNED, lengths=[*lengths, long])))
    assert not flaws
    assert learned.lengths == lengths[MOST_CELLS:]


def test_lengths_count_half_after_a_week_and_a_clock_set_back_makes_them_no_more() -> None:
    written = LEARNED.written_unix_s
    assert LEARNED.lengths_keep(written + 7 * 86_400) == pytest.approx(0.5)
    assert LEARNED.lengths_keep(written - 1e6) == 1.0


def test_a_card_is_the_same_under_another_name_and_another_with_another_setting() -> None:
    spec = BackendSpec("a", "t4", "vllm", "m", url="http://a:8000")
    assert card_of(replace(spec, name="b", weight=2.0, labels={"x": "y"})) == card_of(spec)
    for other in (
        {"gpu": "l4"},
        {"model": "n"},
        {"engine": "sglang"},
        {"url": "http://b:8000"},
        {"engine_version": "0.9"},
        {"quantization": "awq"},
        {"engine_args": {"enforce_eager": True}},
    ):
        assert card_of(replace(spec, **other)) != card_of(spec)
