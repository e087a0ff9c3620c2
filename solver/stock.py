"""Cards in stock, and every engine that could be built from them.

A pool is the cards of one GPU type in one zone. Cards that form one engine today are known to
be linked, so an engine of the plan may span at most as many.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from router.domain.errors import ImpossibleFleetError, WorkloadError
from router.domain.fleet import BackendSpec, EngineName, Fleet
from router.perf.hardware import Hardware

UNLIMITED = 1_000_000


@dataclass(frozen=True, slots=True)
class Pool:
    """Interchangeable cards.

    Attributes:
        gpu: type.
        zone: failure and network domain.
        islands: how many groups of linked cards, by size.
    """

    gpu: str
    zone: str
    islands: Mapping[int, int]

    @property
    def name(self) -> str:
        """``t4`` or ``t4@zone``."""
        return f"{self.gpu}@{self.zone}" if self.zone else self.gpu

    @property
    def cards(self) -> int:
        """All cards."""
        return sum(size * count for size, count in self.islands.items())

    def slots(self, size: int) -> int:
        """Engines of ``size`` cards that the islands could hold."""
        return sum(count * (island // size) for island, count in self.islands.items())

    def sizes(self) -> list[int]:
        """Engine sizes that fit: powers of two up to the largest island."""
        largest = max((size for size, count in self.islands.items() if count), default=0)
        return [1 << power for power in range(largest.bit_length()) if 1 << power <= largest]


@dataclass(frozen=True, slots=True)
class Candidate:
    """One kind of engine that a pool could run.

    Attributes:
        spec: the engine; its ``group`` is the column's name.
        pool: index of the pool.
        running: how many run now.
        most: how many exist, running or to be started; more cards do not make more of them.
    """

    spec: BackendSpec
    pool: int
    running: int
    most: int = UNLIMITED


@dataclass(frozen=True, slots=True)
class Stock:
    """Cards and what they could run.

    Attributes:
        pools: the cards.
        candidates: engines that could be built from them.
        refused: groups that could not, and why.
        hardware: the catalogue they were checked against.
    """

    pools: tuple[Pool, ...]
    candidates: tuple[Candidate, ...]
    refused: Mapping[str, str] = field(default_factory=dict)
    hardware: Hardware = field(default_factory=Hardware)


@dataclass(frozen=True, slots=True)
class _Variant:
    """A way to serve a model: which engine, which weight format."""

    model: str
    engine: EngineName
    quantization: str
    max_model_len: int | None


def stock_of(
    fleet: Fleet,
    models: Iterable[str] = (),
    *,
    hardware: Hardware | None = None,
    movable: bool = True,
) -> Stock:
    """Pools of a fleet and the engines they could run.

    Args:
        fleet: its cards are the stock, its backends the running placement.
        models: models to serve besides those the fleet serves.
        hardware: the catalogue, with the user's own models and measurements.
        movable: whether replicas may change; if not, only what runs is a candidate.

    Raises:
        WorkloadError: a fleet without cards.
        UnknownNameError: a model that is in no catalogue.
    """
    if not fleet.backends:
        raise WorkloadError("the fleet has no cards: list at least one backend")
    known = hardware or Hardware()
    pools = pools_of(fleet)
    wanted = sorted(set(models) | fleet.models)
    specs = {group: members[0] for group, members in fleet.groups().items()}
    refused: dict[str, str] = {}
    if movable:
        for spec in _ideas(fleet, pools, wanted):
            if spec.group not in specs and feasible(spec, known, refused):
                specs[spec.group] = spec
    place = {(pool.gpu, pool.zone): index for index, pool in enumerate(pools)}
    running = {group: len(members) for group, members in fleet.groups().items()}
    candidates = tuple(
        Candidate(spec, place[spec.gpu, spec.zone], running.get(group, 0))
        for group, spec in sorted(specs.items())
    )
    return Stock(pools, candidates, refused, known)


def placed_stock(
    pools: Sequence[Pool],
    running: Sequence[BackendSpec],
    startable: Sequence[BackendSpec],
    hardware: Hardware,
    *,
    scalable: bool = False,
) -> Stock:
    """Stock of a fleet whose engines exist already, awake or not.

    Args:
        pools: the cards.
        running: engines that serve.
        startable: engines that could be started, each once.
        hardware: the catalogue.
        scalable: engines can be multiplied (a deployment), so that only cards limit them.

    Raises:
        WorkloadError: an engine on cards that are in no pool.
    """
    place = {(pool.gpu, pool.zone): index for index, pool in enumerate(pools)}
    members = Fleet((*running, *startable)).groups()
    awake = Counter(spec.group for spec in running)
    candidates = []
    for group, specs in sorted(members.items()):
        spec = specs[0]
        if (spec.gpu, spec.zone) not in place:
            where = f"{spec.gpu}@{spec.zone}" if spec.zone else spec.gpu
            raise WorkloadError(
                f"{group} runs on {where}, which planner.placement.stock does not list"
            )
        most = UNLIMITED if scalable else len(specs)
        candidates.append(Candidate(spec, place[spec.gpu, spec.zone], awake[group], most))
    return Stock(tuple(pools), tuple(candidates), {}, hardware)


def pools_of(fleet: Fleet) -> tuple[Pool, ...]:
    """The fleet's cards by GPU type and zone, in the order of first appearance."""
    islands: dict[tuple[str, str], dict[int, int]] = {}
    for backend in fleet.backends:
        sizes = islands.setdefault((backend.gpu, backend.zone), {})
        sizes[backend.tensor_parallel] = sizes.get(backend.tensor_parallel, 0) + 1
    return tuple(Pool(gpu, zone, sizes) for (gpu, zone), sizes in islands.items())


def _ideas(fleet: Fleet, pools: Iterable[Pool], models: Iterable[str]) -> Iterator[BackendSpec]:
    """Every (pool, model variant, size), feasible or not."""
    for pool in pools:
        residents = [b for b in fleet.backends if (b.gpu, b.zone) == (pool.gpu, pool.zone)]
        engines = {b.engine: b for b in reversed(residents)}
        for variant in _variants(fleet, models, engines):
            template = engines[variant.engine]
            for size in pool.sizes():
                yield replace(
                    template,
                    name=pool.name,
                    model=variant.model,
                    quantization=variant.quantization,
                    tensor_parallel=size,
                    max_model_len=variant.max_model_len,
                    # Measured or set for another model or size: they do not carry over.
                    kv_capacity_tokens=None,
                    max_num_seqs=None,
                    max_num_batched_tokens=None,
                    url=None,
                )


def _variants(
    fleet: Fleet, models: Iterable[str], engines: Mapping[EngineName, BackendSpec]
) -> Iterator[_Variant]:
    """Weight formats that the fleet uses for a model, on the engines that the pool runs."""
    for model in models:
        serving = [b for b in fleet.backends if b.model == model]
        formats = {b.quantization: b.max_model_len for b in reversed(serving)} or {"": None}
        for engine in engines:
            for quantization, max_model_len in formats.items():
                yield _Variant(model, engine, quantization, max_model_len)


def feasible(spec: BackendSpec, hardware: Hardware, refused: dict[str, str]) -> bool:
    """Whether an engine can run; notes in ``refused`` why not.

    Raises:
        UnknownNameError: a GPU or model that is in no catalogue.
    """
    try:
        hardware.check_feasible(spec)
    except ImpossibleFleetError as error:
        refused[spec.group] = str(error)
        return False
    return True
