"""Watts: the prior's anchors, DCGM's page, NVML's cards."""

from __future__ import annotations

import pytest

from router.domain.errors import ConfigError
from router.perf.catalog import gpu
from telemetry.exposition import Problems
from telemetry.power import LocalCards, pick, prior_of, read_dcgm

PAGE = """# HELP DCGM_FI_DEV_POWER_USAGE Power draw (in W).
# TYPE DCGM_FI_DEV_POWER_USAGE gauge
DCGM_FI_DEV_POWER_USAGE{gpu="0",UUID="GPU-a",device="nvidia0",modelName="NVIDIA A100-SXM4-80GB",Hostname="n1"} 251.3
DCGM_FI_DEV_POWER_USAGE{gpu="1",UUID="GPU-b",device="nvidia1",modelName="NVIDIA A100-SXM4-80GB",Hostname="n1"} 60.0
DCGM_FI_DEV_POWER_USAGE{gpu="2",UUID="GPU-c",device="nvidia2",modelName="NVIDIA A100-SXM4-80GB",Hostname="n1"} NaN
DCGM_FI_DEV_POWER_USAGE{gpu="3",UUID="GPU-d",device="nvidia3",modelName="NVIDIA A100-SXM4-80GB",Hostname="n1"} 9e9
"""  # noqa: E501 - as the exporter writes it


def test_the_prior_meets_what_was_measured_on_an_h100() -> None:
    prior = prior_of(gpu("h100"), 1)
    assert prior.watts(1) == pytest.approx(300, rel=0.02)
    assert prior.watts(128) == pytest.approx(600, rel=0.02)
    assert prior.watts(0) == gpu("h100").idle_w
    assert prior.watts(10_000) == prior.watts(128)
    levels = [prior.watts(n) for n in range(200)]
    assert levels == sorted(levels)


def test_more_cards_draw_more() -> None:
    assert prior_of(gpu("t4"), 2).watts(8) == 2 * prior_of(gpu("t4"), 1).watts(8)


def test_dcgm_tells_watts_and_names_and_broken_sensors_are_left_out() -> None:
    problems = Problems()
    cards = read_dcgm(PAGE, problems)
    assert [(card.index, card.watts) for card in cards] == [("0", 251.3), ("1", 60.0)]
    assert cards[0].name == "NVIDIA A100-SXM4-80GB"
    assert problems.counts == {"nan": 1, "out_of_range": 1}


def test_cards_are_picked_by_number_or_uuid_and_a_part_is_not_the_power() -> None:
    cards = read_dcgm(PAGE)
    assert pick(cards, ["0", "GPU-b"]) == cards
    assert pick(cards, []) == cards
    assert pick(cards, ["0", "2"]) is None, "its sensor is broken"
    assert pick([], []) is None


@pytest.mark.parametrize("page", ["", "rubbish", "DCGM_FI_DEV_POWER_USAGE{", b"\xff\xfe\x00"])
def test_rubbish_tells_nothing(page: str | bytes) -> None:
    assert read_dcgm(page) == []


class Nvml:
    """What the binding does."""

    class NVMLError(Exception):
        pass

    def __init__(self) -> None:
        self.broken: set[int] = set()

    def nvmlInit(self) -> None:  # noqa: N802
        pass

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:  # noqa: N802
        if index > 1:
            raise self.NVMLError("Invalid Argument")
        return index

    def nvmlDeviceGetPowerUsage(self, handle: int) -> int:  # noqa: N802
        if handle in self.broken:
            raise self.NVMLError("GPU is lost")
        return 70_500 + handle

    def nvmlDeviceGetName(self, handle: int) -> str:  # noqa: N802
        return "Tesla T4"


def test_nvml_adds_up_the_cards_of_an_engine() -> None:
    library = Nvml()
    cards = LocalCards({"t4-0": [0, 1]}, library)
    assert cards.read() == {"t4-0": (pytest.approx(141.001), "Tesla T4")}
    library.broken.add(1)
    assert cards.read() == {}, "unknown, not zero"


def test_a_card_that_does_not_exist_is_named() -> None:
    with pytest.raises(ConfigError, match="nvidia-smi"):
        LocalCards({"t4-0": [7]}, Nvml())
