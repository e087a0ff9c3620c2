"""How long a request would wait that enters now."""

from __future__ import annotations

import pytest

from router.domain.slo import Slo
from router.queue.admission import would_wait_s
from router.queue.class_room import ClassRoom
from router.queue.yardstick import Drain
from tests.router.queue.test_class_room import BULK, CHAT, entry

THROUGHPUT = Slo("throughput", ttft_s=10.0)
SLOS = {slo.name: slo for slo in (CHAT, THROUGHPUT, BULK)}


@pytest.fixture
def drain() -> Drain:
    """A queue that was never empty: a second of chat and one of throughput are sent each second."""
    learned = Drain()
    learned.waits(0.0, somebody=True)
    for second in range(1, 300):
        learned.sent("interactive", 1.0, float(second), somebody=True)
        learned.sent("throughput", 1.0, float(second), somebody=True)
    return learned


def wait_s(asked: str, drain: Drain, room: ClassRoom, slos: dict[str, Slo] = SLOS) -> float:
    slo = slos[asked]
    new = entry("new", slo=slo, latest_start_s=5.0 if slo.urgent else None)
    return would_wait_s(new, room, drain, 2.0, slos, least_share=0.1)


def test_who_is_tighter_takes_his_share_first(drain: Drain) -> None:
    room, rate, share = ClassRoom(100, {}), drain.rate(2.0), drain.rate_of("interactive")
    assert wait_s("interactive", drain, room) == pytest.approx(0.5 / rate)
    assert wait_s("throughput", drain, room) == pytest.approx(0.5 / (rate - share))
    left = rate - share - drain.rate_of("throughput")
    assert wait_s("bulk", drain, room) == pytest.approx(0.5 / max(left, 0.1 * rate))


def test_who_has_the_same_target_takes_no_more_than_his_turn(drain: Drain) -> None:
    alike = {**SLOS, "throughput": Slo("throughput", ttft_s=CHAT.ttft_s)}
    room, rate = ClassRoom(100, {}), drain.rate(2.0)
    for asked in ("interactive", "throughput"):
        assert wait_s(asked, drain, room, alike) == pytest.approx(0.5 / rate)


def test_work_of_others_that_starts_no_later_is_ahead(drain: Drain) -> None:
    room, rate = ClassRoom(100, {}), drain.rate(2.0)
    room.enter(entry("soon", slo=THROUGHPUT, latest_start_s=5.0, work_s=3.0))
    room.enter(entry("later", slo=THROUGHPUT, latest_start_s=5.1, work_s=7.0))
    room.enter(entry("bulk", work_s=20.0))
    assert wait_s("interactive", drain, room) == pytest.approx((3.0 + 0.5) / rate)


def test_without_a_target_all_who_have_one_are_ahead_and_who_came_before(drain: Drain) -> None:
    room = ClassRoom(100, {})
    room.enter(entry("chat", slo=CHAT, latest_start_s=50.0, work_s=3.0))
    room.enter(entry("also", slo=Slo("other"), arrival_s=0.0, work_s=4.0))
    room.enter(entry("after", slo=Slo("other"), arrival_s=0.1, work_s=8.0))
    nothing_ahead_s = wait_s("bulk", drain, ClassRoom(100, {}))
    assert wait_s("bulk", drain, room) == pytest.approx(7.5 / 0.5 * nothing_ahead_s)
