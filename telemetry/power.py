"""How much power a backend draws: as its cards say, where they do, else as a prior says.

DCGM's exporter gives watts and the card's name over HTTP; NVML gives watts on the machine itself.
Without either, the prior goes from 43% of the board's limit for one running sequence to 86% for
128 (H100 as measured by ML.ENERGY v3.0, quoted by vllm-project/semantic-router), evenly per
doubling; an idle engine draws the catalogue's ``idle_w``. Other cards were seen at 43 to 79%
(A100, Splitwise, less with more cards), so a prior may be a third off, and is labelled as one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from router.domain.errors import ConfigError
from router.perf.specs import GpuSpec
from telemetry.exposition import Exposition, Problems

SHARE_ONE, SHARE_FULL, FULL_SEQS = 0.43, 0.86, 128

DCGM_WATTS = "DCGM_FI_DEV_POWER_USAGE"
MOST_WATTS = 10_000.0
"""More than this from one card is a broken sensor."""


@dataclass(frozen=True, slots=True)
class PowerPrior:
    """Power of one backend by how busy it is.

    Attributes:
        idle_w: of all its cards with an engine loaded and no work.
        limit_w: board power limit of all its cards.
    """

    idle_w: float
    limit_w: float

    def watts(self, running: float) -> float:
        """Power with so many sequences running."""
        if running <= 0:
            return self.idle_w
        doublings = math.log2(max(1.0, min(running, FULL_SEQS))) / math.log2(FULL_SEQS)
        share = SHARE_ONE + (SHARE_FULL - SHARE_ONE) * doublings
        return max(self.idle_w, share * self.limit_w)


def prior_of(gpu: GpuSpec, cards: int) -> PowerPrior:
    """The prior of an engine on ``cards`` cards of one type."""
    return PowerPrior(gpu.idle_w * cards, gpu.tdp_w * cards)


@dataclass(frozen=True, slots=True)
class Card:
    """One card as DCGM tells of it.

    Attributes:
        index, uuid: ``gpu`` and ``UUID`` labels.
        name: ``modelName`` label.
        watts: power now.
    """

    index: str
    uuid: str
    name: str
    watts: float


def read_dcgm(text: str | bytes, problems: Problems | None = None) -> list[Card]:
    """Every card of one DCGM exposition whose power can be believed; never raises."""
    noted = problems if problems is not None else Problems()
    cards = []
    for series in Exposition(text, noted).series(DCGM_WATTS):
        if series.value > MOST_WATTS:
            noted.note("out_of_range")
            continue
        labels = series.labels
        name = labels.get("modelName", "")
        cards.append(Card(labels.get("gpu", ""), labels.get("UUID", ""), name, series.value))
    return cards


def pick(cards: Sequence[Card], wanted: Sequence[str]) -> list[Card] | None:
    """The wanted cards by index or UUID (all of them if none are named); ``None`` unless all
    are there, as a part of the power is not the power."""
    if not wanted:
        return list(cards) or None
    known: dict[str, Card] = {}
    for card in cards:
        known |= {card.index: card, card.uuid: card}
    found = [known[name] for name in wanted if name in known]
    return found if len(found) == len(wanted) else None


class Nvml(Protocol):
    """The part of ``nvidia-ml-py`` that is used."""

    NVMLError: type[Exception]

    def nvmlInit(self) -> None:  # noqa: N802
        """Start."""

    def nvmlDeviceGetHandleByIndex(self, index: int) -> Any:  # noqa: N802
        """One card."""

    def nvmlDeviceGetPowerUsage(self, handle: Any) -> int:  # noqa: N802
        """Milliwatts."""

    def nvmlDeviceGetName(self, handle: Any) -> str:  # noqa: N802
        """Name of the card."""


class LocalCards:
    """Cards of this machine, over NVML.

    Args:
        wanted: card indices by backend.
        library: the NVML binding; ``nvidia-ml-py`` by default.

    Raises:
        ConfigError: the binding is not installed, there is no driver, or no such card.
    """

    def __init__(self, wanted: Mapping[str, Sequence[int]], library: Nvml | None = None) -> None:
        self._nvml = library if library is not None else _nvml()
        try:
            self._nvml.nvmlInit()
            self._handles = {
                name: [self._nvml.nvmlDeviceGetHandleByIndex(i) for i in indices]
                for name, indices in wanted.items()
            }
        except self._nvml.NVMLError as error:
            raise ConfigError(
                f"telemetry.power: NVML cannot read the cards of this machine ({error}); "
                "name cards that nvidia-smi lists, or read them over DCGM"
            ) from error

    def read(self) -> dict[str, tuple[float, str]]:
        """(watts, name of the first card) by backend; a card that fails leaves its backend out."""
        told: dict[str, tuple[float, str]] = {}
        for name, handles in self._handles.items():
            try:
                watts = sum(self._nvml.nvmlDeviceGetPowerUsage(h) for h in handles) / 1000.0
                told[name] = (watts, str(self._nvml.nvmlDeviceGetName(handles[0])))
            except self._nvml.NVMLError:  # a card that fell off the bus, say
                continue
        return told


def _nvml() -> Nvml:
    try:
        import pynvml  # noqa: PLC0415 - an extra
    except ImportError:
        raise ConfigError(
            "telemetry.power with nvml needs nvidia-ml-py: pip install 'motley-router[nvml]'"
        ) from None
    library: Nvml = pynvml
    return library
