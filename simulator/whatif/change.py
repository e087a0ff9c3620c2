"""A change of the fleet, as a person writes it: ``t4:2``, ``h100:1/sglang``, ``v100``, ``t4-3``."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from router.config.fleet import build_fleet
from router.config.load import MotleyConfig
from router.config.schema import BackendEntry, PolicySection
from router.domain.errors import BadInputError, UnknownNameError
from router.domain.fleet import ENGINES, BackendSpec, Fleet
from router.policies.registry import POLICIES

_ADD = re.compile(
    r"(?P<gpu>[a-z0-9-]+?)(x(?P<tp>[1-9]\d?))?(:(?P<count>[1-9]\d{0,3}))?(/(?P<engine>vllm|sglang|llamacpp))?"
)


@dataclass(frozen=True, slots=True)
class Change:
    """What is different in the other world.

    Attributes:
        add: ``GPU[xTP][:COUNT][/ENGINE]``: so many more engines, each on TP cards.
        remove: a backend by name, or ``GPU[:COUNT]``: all, or so many, of that type.
        policy: another policy; empty keeps the one there is.
        load: traffic times this.
    """

    add: tuple[str, ...] = ()
    remove: tuple[str, ...] = ()
    policy: str = ""
    load: float = 1.0

    def __post_init__(self) -> None:
        if not 0.0 < self.load < float("inf"):
            raise BadInputError(f"--load must be above 0, not {self.load:g}")
        if not (self.add or self.remove or self.policy or self.load != 1.0):
            raise BadInputError("nothing would change: give --add, --remove, --policy or --load")


def changed(config: MotleyConfig, change: Change) -> MotleyConfig:
    """The configuration of the other world.

    Raises:
        UnknownNameError: no such policy, GPU or backend.
        BadInputError: an unreadable change, or nothing would be left.
        ImpossibleFleetError: what is added cannot run.
    """
    if change.policy and change.policy not in POLICIES:
        raise UnknownNameError("policy", change.policy, tuple(POLICIES))
    backends = [config.first_backend, *config.fleet.backends[1:]]
    for word in change.remove:
        backends = _without(backends, word)
    for word in change.add:
        backends += _more(config, backends, word)
    if not backends:
        raise BadInputError("no backend would be left: remove fewer")
    policy = config.policy
    if change.policy and change.policy != policy.name:
        policy = PolicySection(name=change.policy, seed=policy.seed)
    return replace(config, fleet=Fleet(tuple(backends)), policy=policy)


def _without(backends: list[BackendSpec], word: str) -> list[BackendSpec]:
    if any(spec.name == word for spec in backends):
        return [spec for spec in backends if spec.name != word]
    gpu, _, number = word.partition(":")
    alike = [spec for spec in backends if _is(spec, gpu)]
    if not alike:
        known = (*dict.fromkeys(s.gpu for s in backends), *(s.name for s in backends))
        raise UnknownNameError("GPU type or backend to remove", gpu, known)
    if number and not number.isdigit():
        raise BadInputError(f"--remove {word!r}: write GPU:COUNT, as in t4:2")
    count = int(number) if number else len(alike)
    if count > len(alike):
        raise BadInputError(f"--remove {word!r}: there are only {len(alike)} of {gpu}")
    leaving = {spec.name for spec in alike[len(alike) - count :]}
    return [spec for spec in backends if spec.name not in leaving]


def _is(spec: BackendSpec, gpu: str) -> bool:
    """``v100`` means every V100, ``v100-32`` those with 32 GB."""
    return spec.gpu == gpu or spec.gpu.startswith(f"{gpu}-")


def _more(config: MotleyConfig, backends: list[BackendSpec], word: str) -> list[BackendSpec]:
    """New backends, set up as those of their kind are, where there are any."""
    match = _ADD.fullmatch(word)
    if match is None:
        raise BadInputError(f"--add {word!r}: write GPU[xTP][:COUNT][/ENGINE], as in t4x2:2/vllm")
    gpu, count = match["gpu"], int(match["count"] or 1)
    like = next((s for s in config.fleet.backends if _is(s, gpu)), None)
    if like is not None:
        gpu = like.gpu
    else:
        like = config.first_backend
        like = replace(like, gpu=gpu, tensor_parallel=1, engine="vllm", zone="", labels={})
        like = replace(like, engine_version="", kv_capacity_tokens=None, max_num_seqs=None)
        like = replace(like, max_num_batched_tokens=None)
    engine = next((name for name in ENGINES if name == match["engine"]), like.engine)
    entry = BackendEntry(
        gpu=gpu,
        model=like.model,
        engine=engine,
        count=count,
        tensor_parallel=int(match["tp"]) if match["tp"] else like.tensor_parallel,
        zone=like.zone,
        quantization=like.quantization,
        max_model_len=like.max_model_len,
    )
    taken = {spec.name for spec in backends}
    made = build_fleet([entry], config.hardware).backends
    return [replace(spec, name=_free(f"new-{spec.name}", taken)) for spec in made]


def _free(name: str, taken: set[str]) -> str:
    chosen, n = name, 1
    while chosen in taken:
        chosen, n = f"{name}-{n}", n + 1
    taken.add(chosen)
    return chosen
