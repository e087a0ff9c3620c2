"""The preStop hook of the engines' pods: it waits for streams, not for anything else."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

import pytest

from tests.deploy.chart import CHART
from tests.fakes.http_server import Handler, served


def hook() -> ModuleType:
    spec = importlib.util.spec_from_file_location("drain", CHART / "files" / "drain.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.LOOK_S = 0.02  # type: ignore[attr-defined]
    return module


@contextmanager
def engine(expositions: list[str]) -> Iterator[int]:
    """An engine whose /metrics says one text after the other, the last for ever."""

    class Metrics(Handler):
        def get(self) -> None:
            text = expositions.pop(0) if len(expositions) > 1 else expositions[0]
            self.say(text.encode(), kind="text/plain")

    with served(Metrics) as url:
        yield int(url.rpartition(":")[2])


VLLM = (
    "# HELP x\n"
    'vllm:num_requests_running{{engine="0"}} {0}\n'
    'vllm:num_requests_waiting{{engine="0"}} {1}\n'
)


@pytest.mark.parametrize(
    "busy",
    [VLLM.format(2.0, 0.0), VLLM.format(0.0, 1.0), 'sglang:num_running_reqs{a="b"} 1\n'],
)
def test_it_waits_until_nothing_is_under_way(busy: str) -> None:
    texts = [busy, busy, VLLM.format(0, 0)]
    with engine(texts) as port:
        hook().main(port, 10.0, quiet_s=0.0)
    assert len(texts) == 1


def test_its_time_is_bounded() -> None:
    began_s = time.monotonic()
    with engine([VLLM.format(1, 0)]) as port:
        hook().main(port, 0.2, quiet_s=0.1)
    assert 0.2 <= time.monotonic() - began_s < 5.0


def test_an_engine_that_is_dead_keeps_nobody_waiting() -> None:
    with engine([""]) as port:
        pass
    assert hook().under_way(port) == 0.0


def test_it_waits_a_little_even_when_idle() -> None:
    """The gateway has to hear of the leaving pod before it is gone."""
    began_s = time.monotonic()
    with engine([VLLM.format(0, 0)]) as port:
        hook().main(port, 10.0, quiet_s=0.2)
    assert time.monotonic() - began_s >= 0.2
