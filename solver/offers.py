"""What can be rented: a price list that the user edits."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from router.domain.errors import WorkloadError
from router.domain.fleet import ENGINES, BackendSpec, EngineName, Fleet
from router.perf.hardware import Hardware
from solver.stock import Candidate, Pool, Stock, feasible

LINKED_WITH_NVLINK = 8
LINKED_WITHOUT = 4
"""Cards of one host: eight where they have NVLink, four on PCIe (cloud instance sizes)."""


@dataclass(frozen=True, slots=True)
class Offer:
    """Cards of one type at one price.

    Attributes:
        gpu: key of the catalogue.
        usd_per_hour: of one card.
        most: cards that can be had.
        linked: cards of one host, which one engine may span.
        engine: what runs on them.
    """

    gpu: str
    usd_per_hour: float
    most: int = 1024
    linked: int = 1
    engine: EngineName = "vllm"

    def __post_init__(self) -> None:
        if not (math.isfinite(self.usd_per_hour) and self.usd_per_hour >= 0):
            raise WorkloadError(
                f"the price of {self.gpu} must be 0 or more $/h, not {self.usd_per_hour!r}"
            )
        if self.most < 0 or self.linked < 1:
            raise WorkloadError(
                f"{self.gpu}: most must be 0 or more and linked at least 1, "
                f"not {self.most} and {self.linked}"
            )


def read_offers(listed: Mapping[str, object], hardware: Hardware) -> tuple[Offer, ...]:
    """Read a price list: ``{t4: 0.53, a100-80: {usd_per_hour: 3.67, most: 16, linked: 8}}``.

    Raises:
        UnknownNameError: a GPU that is in no catalogue.
        WorkloadError: an entry of another form, or an empty list.
    """
    if not listed:
        raise WorkloadError("the price list is empty: list at least one GPU and its price")
    return tuple(_offer(gpu, entry, hardware) for gpu, entry in listed.items())


def catalogue_offers(hardware: Hardware) -> tuple[Offer, ...]:
    """Every GPU of the catalogue at its default price."""
    return tuple(_offer(name, None, hardware) for name in hardware.catalog.gpus)


def _offer(gpu: str, entry: object, hardware: Hardware) -> Offer:
    spec = hardware.catalog.gpu(gpu)
    linked = LINKED_WITH_NVLINK if spec.nvlink_gb_per_s > 0 else LINKED_WITHOUT
    default = Offer(gpu, spec.price_usd_per_hour, linked=linked)
    if entry is None:
        return default
    fields = entry if isinstance(entry, Mapping) else {"usd_per_hour": entry}
    _check_entry(gpu, fields)
    return replace(default, **fields)


def _check_entry(gpu: str, fields: Mapping[str, object]) -> None:
    kinds: dict[str, tuple[type, ...]] = {
        "usd_per_hour": (int, float),
        "most": (int,),
        "linked": (int,),
        "engine": (str,),
    }
    for name, value in fields.items():
        if name not in kinds:
            raise WorkloadError(f"{gpu}: no such setting {name!r}; there are {', '.join(kinds)}")
        if isinstance(value, bool) or not isinstance(value, kinds[name]):
            raise WorkloadError(f"{gpu}: {name} cannot be {value!r}")
    engine = fields.get("engine", "vllm")
    if engine not in ENGINES:
        raise WorkloadError(f"{gpu}: engine must be one of {', '.join(ENGINES)}, not {engine!r}")


def market(
    offers: Iterable[Offer],
    models: Iterable[str],
    hardware: Hardware,
    templates: Iterable[BackendSpec] = (),
) -> Stock:
    """Offers as stock: nothing runs, everything that can run on an offer is a candidate.

    Args:
        offers: what can be rented.
        models: what has to be served.
        hardware: the catalogue.
        templates: backends whose weight format and context limit their model keeps.
    """
    pools: list[Pool] = []
    candidates: list[Candidate] = []
    refused: dict[str, str] = {}
    like = {spec.model: spec for spec in reversed(list(templates))}
    for offer in offers:
        pool = Pool(offer.gpu, "", {offer.linked: offer.most // offer.linked})
        for model in sorted(models):
            known = like.get(model)
            if not pool.cards:
                refused[f"{offer.gpu}/{offer.engine}/{model}"] = (
                    f"no {offer.gpu} can be had: at most {offer.most}, {offer.linked} at a time"
                )
            for size in pool.sizes():
                spec = BackendSpec(
                    f"{offer.gpu}-offer",
                    offer.gpu,
                    offer.engine,
                    model,
                    tensor_parallel=size,
                    quantization=known.quantization if known else "",
                    max_model_len=known.max_model_len if known else None,
                )
                if feasible(spec, hardware, refused):
                    candidates.append(Candidate(spec, len(pools), 0))
        pools.append(pool)
    return Stock(tuple(pools), tuple(candidates), refused, hardware)


def bought(stock: Stock, counts: Mapping[str, int]) -> Fleet:
    """The fleet of so many replicas of each group, named as a fleet file names them."""
    specs: list[BackendSpec] = []
    numbers: dict[str, int] = {}
    for candidate in stock.candidates:
        for _ in range(counts.get(candidate.spec.group, 0)):
            number = numbers.get(candidate.spec.gpu, 0)
            numbers[candidate.spec.gpu] = number + 1
            specs.append(replace(candidate.spec, name=f"{candidate.spec.gpu}-{number}"))
    return Fleet(tuple(specs))
