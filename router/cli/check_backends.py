"""What each backend of a configuration can serve, and how fast, as the hardware model believes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from router.config.load import MotleyConfig
    from router.domain.fleet import BackendSpec

PROMPT_TOKENS, OUTPUT_TOKENS = 1024, 256
CROWD = 16


@dataclass(frozen=True, slots=True)
class Line:
    """One backend as it is expected to perform; seconds, tokens."""

    name: str
    model: str
    engine: str
    cards: str
    url: str
    kv_capacity_tokens: int
    max_context_tokens: int
    streams: int
    ttft_s: float
    tpot_s: float
    tpot_crowded_s: float


def describe(config: MotleyConfig, spec: BackendSpec) -> Line:
    """What the hardware model expects of one backend."""
    hardware = config.hardware
    model = hardware.iteration_model(spec)
    kv_tokens = hardware.kv_capacity_tokens(spec)
    defaults = hardware.engine_defaults(spec)
    tokens = PROMPT_TOKENS + OUTPUT_TOKENS
    chunk = defaults.max_num_batched_tokens
    whole, rest = divmod(PROMPT_TOKENS, chunk)
    ttft_s = whole * model.iteration_s(chunk, 0, 0.0)
    ttft_s += model.iteration_s(rest, 0, 0.0) if rest else 0.0
    return Line(
        name=spec.name,
        model=spec.model,
        engine=spec.engine,
        cards=f"{spec.tensor_parallel} x {spec.gpu}",
        url=spec.url or "",
        kv_capacity_tokens=kv_tokens,
        max_context_tokens=min(hardware.max_context_tokens(spec), kv_tokens),
        streams=min(defaults.max_num_seqs, kv_tokens // tokens),
        ttft_s=ttft_s,
        tpot_s=model.iteration_s(0, 1, float(tokens)),
        tpot_crowded_s=model.iteration_s(0, CROWD, float(CROWD * tokens)),
    )


def alike(lines: list[Line]) -> list[tuple[str, Line]]:
    """Equal backends in one row."""
    rows: dict[Line, list[str]] = {}
    for line in lines:
        rows.setdefault(replace(line, name="", url=""), []).append(line.name)
    return [
        (names[0] if len(names) == 1 else f"{names[0]} +{len(names) - 1}", line)
        for line, names in rows.items()
    ]
