import pytest

from simulator.engine_server.clock import EngineClock


class Time:
    now = 50.0

    def __call__(self):
        return self.now


def test_emulated_time_starts_at_zero_and_runs_at_its_speed():
    time = Time()
    clock = EngineClock(time, speed=4)
    assert clock.now() == 0
    time.now += 2
    assert clock.now() == 8
    assert clock.real(8) == time.now
    assert clock.real(10) == time.now + 0.5


def test_time_spent_paused_does_not_count():
    time = Time()
    clock = EngineClock(time, speed=2)
    time.now += 1
    clock.pause()
    time.now += 100
    clock.pause()
    assert clock.paused
    assert clock.now() == 2
    clock.resume()
    clock.resume()
    assert not clock.paused
    time.now += 1
    assert clock.now() == 4
    assert clock.real(4) == time.now


@pytest.mark.parametrize("speed", [0, -1, float("nan")])
def test_time_must_move(speed):
    with pytest.raises(ValueError, match="speed"):
        EngineClock(Time(), speed)
