"""One decision core, two worlds: a recorded run replays byte for byte.

The gateway and the simulator drive the same Dispatcher; whatever drove it, feeding its log into a
fresh one must write the same log again.
"""

from __future__ import annotations

import inspect
import json
from collections import Counter
from collections.abc import Callable

import pytest

from router.config.build import rebuild_dispatcher
from router.dispatcher import Dispatcher
from router.domain.errors import DamagedLogError, ReplayError
from router.log_replay import replay
from router.policies.registry import POLICIES
from tests.parity.recording import Recording


@pytest.fixture(scope="module")
def log() -> list[bytes]:
    """A run of Motley's own policy."""
    return Recording("motley").log


def calls(log: list[bytes]) -> Counter[str]:
    return Counter(json.loads(line)["call"] for line in log)


@pytest.mark.parametrize("policy", sorted(POLICIES))
def test_every_policy_decides_the_same_again(policy: str):
    log = Recording(policy).log
    assert replay(log, rebuild_dispatcher) == len(log) - 1 > 300


@pytest.mark.parametrize("policy", ["motley", "least-request"])
def test_so_does_a_scheduler_of_classes(policy: str):
    targets = {"interactive": {"ttft_s": 0.5, "tpot_s": 0.1}}
    log = Recording(policy, admission={"enabled": True}, slos=targets).log
    assert replay(log, rebuild_dispatcher) == len(log) - 1 > 300
    text = b"".join(log)
    assert b'"slo_unattainable"' in text
    assert b'"recalled"' in text


@pytest.mark.parametrize("classes", [False, True])
def test_so_does_one_that_splits_requests(classes: bool):
    links = {"enabled": True, "gain": 0.0}
    settings = {"admission": {"enabled": True}} if classes else {}
    log = Recording("motley", disaggregation=links, **settings).log
    assert replay(log, rebuild_dispatcher) == len(log) - 1 > 300
    text = b"".join(log)
    assert b'"prefill":"first"' in text
    assert b'"prefill":true' in text, "nobody blamed a prefill side"


def test_so_does_who_looks_beyond_the_breakers(log: list[bytes]):
    care = {
        "outlier": {"enabled": True, "failure_ratio": 0.2, "min_requests": 3},
        "slow_start_s": 5.0,
        "panic_threshold": 0.5,
    }
    careful = Recording("motley", reliability=care).log
    assert replay(careful, rebuild_dispatcher) == len(careful) - 1 > 300
    assert careful[1:] != log[1:], "it decides otherwise"


def test_the_same_run_writes_the_same_bytes(log: list[bytes]):
    assert Recording("motley").log == log


def test_every_call_that_changes_the_dispatcher_is_in_the_log(log: list[bytes]):
    public = {
        name
        for name, member in inspect.getmembers(Dispatcher, inspect.isfunction)
        if not name.startswith("_")
    }
    hedging = {"enabled": True, "extra": 1.0, "gain": 0.0}
    log = Recording("motley", hedging=hedging, disaggregation={"enabled": True}).log
    only_ask = {"next_poll_s", "hedge_due_s", "holds", "known"}
    told_with_dispatch = {"book"}
    assert public - set(calls(log)) == only_ask | told_with_dispatch


@pytest.mark.parametrize("classes", [False, True])
def test_books_that_are_opened_after_sending_write_the_same_log(classes: bool):
    settings = {"admission": {"enabled": True}} if classes else {}
    at_once, afterwards = (
        Recording("motley", send_first=late, **settings).log for late in (False, True)
    )
    assert afterwards == at_once


def test_the_run_has_every_kind_of_answer(log: list[bytes]):
    text = b"".join(log)
    for answer in (b'"assign"', b'"wait"', b'"queue_timeout"', b'"unknown_model"'):
        assert answer in text


def test_a_log_may_be_read_as_a_file_is_read(log: list[bytes]):
    content = b"".join(log)
    assert replay(content.splitlines(keepends=True), rebuild_dispatcher) == len(log) - 1
    assert replay(content.rstrip(b"\n").splitlines(), rebuild_dispatcher) == len(log) - 1


def test_the_slos_of_the_file_decide_again():
    slos = {"interactive": {"ttft_s": 0.05}, "bulk": {"ttft_s": 0.4}}
    log = Recording("goodserve-just-enough", slos=slos).log
    assert b'"ttft_s":0.05' in log[0]
    replay(log, rebuild_dispatcher)
    ordinary = Recording("goodserve-just-enough").log
    assert log[1:] != ordinary[1:], "the targets made no difference"


def test_a_backend_that_joins_brings_its_belief_along(log: list[bytes]):
    (line,) = [json.loads(x) for x in log if b'"add_backend"' in x and b'"l4-0"' in x]
    assert line["args"]["capability"]["cost"]["step_s"] == pytest.approx(0.01 + 0.001 * 4)


def first(log: list[bytes], needle: bytes) -> int:
    """Number of the first line with ``needle``, as an editor counts."""
    return next(n for n, line in enumerate(log, start=1) if needle in line)


Change = Callable[[bytes], bytes]


@pytest.mark.parametrize(
    ("needle", "change", "message"),
    [
        (b'{"assign":"t4-1"}', lambda x: x.replace(b't4-1"}}', b't4-0"}}'), "answers otherwise"),
        (b'"wait"', lambda x: x.replace(b'"wait"', b'"assign"'), "answers otherwise"),
        (b'"call":"poll"', lambda x: x.replace(b"[]", b'[["r1",{"assign":"t4-0"}]]'), "otherwise"),
        (b'"call":"refuse"', lambda x: x.replace(b'"r', b'"x'), "'x.*'"),
        (b'"call":"drain"', lambda x: x.replace(b"t4-1", b"t4-9"), "unknown backend 't4-9'"),
        (b'"call":"drain"', lambda x: x.replace(b"drain", b"close"), "unknown call 'close'"),
        (b'"call":"drain"', lambda x: x.replace(b'"args"', b'"arg"'), "'args' is missing"),
        (b'"call":"drain"', lambda x: x.replace(b'"now"', b'"then"'), "'now' is missing"),
        (b'"call":"drain"', lambda x: x.replace(b'"call"', b'"tell"'), "'call' is missing"),
        (b'"call":"scrape"', lambda x: x.replace(b'"running"', b'"walking"'), "walking"),
        (b'"call":"correct"', lambda x: x.replace(b'"prefill":1.5', b'"prefill":null'), "NoneType"),
        (b'"call":"correct"', lambda x: x.replace(b'"prefill":1.5', b'"prefill":0'), "above 0"),
        (b'"call":"complete"', lambda x: x[: len(x) // 2], "not JSON"),
        (b'"call":"complete"', lambda x: b"[1, 2]\n", "not a JSON object"),
        (b'"call":"complete"', lambda x: b"\n", "not JSON"),
        (b'"call":"complete"', lambda x: b"\xff\n", "not JSON"),
    ],
)
def test_a_line_that_was_changed_is_named(
    log: list[bytes], needle: bytes, change: Change, message: str
):
    number = first(log, needle)
    changed = [*log]
    changed[number - 1] = change(log[number - 1])
    assert changed != log
    error = ReplayError if message.endswith("otherwise") else DamagedLogError
    with pytest.raises(error, match=rf"^line {number}: .*{message}"):
        replay(changed, rebuild_dispatcher)


def test_a_line_that_was_taken_out_shows_in_one_that_depends_on_it(log: list[bytes]):
    number = first(log, b'"call":"dispatch"')
    with pytest.raises(ReplayError, match=r"line [0-9]+: "):
        replay(log[: number - 1] + log[number:], rebuild_dispatcher)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x.replace(b'"seed":5', b'"seed":6'), "line [0-9]+: .*answers otherwise"),
        (lambda x: x.replace(b'"random"', b'"randm"'), "line 1: .*unknown policy 'randm'"),
        (lambda x: x.replace(b'"fleet"', b'"feet"'), "line 1: .*'fleet' is missing"),
        (lambda x: x.replace(b'"fleet":[', b'"fleet":[3,'), "line 1: cannot be replayed"),
        (lambda x: x.replace(b'"open"', b'"close"'), "line 1: .*begins with its 'open' line"),
    ],
)
def test_so_is_a_header_that_was_changed(change: Change, message: str):
    log = Recording("random").log
    error = ReplayError if message.endswith("otherwise") else DamagedLogError
    with pytest.raises(error, match=message):
        replay([change(log[0]), *log[1:]], rebuild_dispatcher)


def test_a_log_without_a_header_or_without_anything(log: list[bytes]):
    with pytest.raises(DamagedLogError, match=r"line 1: .*begins with its 'open' line"):
        replay(log[1:], rebuild_dispatcher)
    with pytest.raises(DamagedLogError, match="the decision log is empty"):
        replay([], rebuild_dispatcher)
