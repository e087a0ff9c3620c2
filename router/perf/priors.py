"""The constants behind a backend's iteration time, and how a user's own measurements replace them.

Priors come from the GPU catalogue (shares of peak compute and bandwidth) and from the engine
(overheads). Measured on vLLM 0.20 to 0.23 they are within 8 % on an A100 without any fitting; the
residual is a factor of 1.0 to 1.6 per engine, version and attention backend, which telemetry
learns online and ``motley calibrate`` learns offline.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace

from router.domain.errors import ConfigError
from router.domain.fleet import BackendSpec
from router.perf.engines import resolve_scheduler
from router.perf.measured import MEASURED_NAMES, MeasuredCost, measured_cost
from router.perf.roofline import SMAX_EXPONENT, IterationModel
from router.perf.specs import GpuSpec, ModelSpec, QuantizationSpec

STEP_US = 500.0
"""Fixed cost of an iteration, vLLM 0.20+ and SGLang 0.5: with 20 us per sequence it predicts TPOT
of Qwen2.5-7B on an A100 within 8 % at 1, 16 and 64 sequences (ree2raz/inference-bench)."""
SEQ_US = 20.0
V0_STEP_US = 2_000.0
"""vLLM V0 schedules, prepares and samples between iterations: 1.9 ms at small batches
(microsoft/vidur cpu_overheads.csv, A100)."""


@dataclass(frozen=True, slots=True)
class Priors:
    """Constants of one backend; the names are those of ``GpuSpec`` plus the engine's overheads.

    Attributes:
        mfu, mfu_attn, mbu, mbu_kv: shares of the peaks, see ``GpuSpec``.
        step_us, layer_us, seq_us: overhead per iteration, per layer and per decoding sequence.
        allreduce_us, link_gb_per_s: see ``GpuSpec``.
        exponent: of the smooth maximum.
        prefill_factor, decode_factor: multipliers of the whole phase, 1 without calibration.
    """

    mfu: float
    mfu_attn: float
    mbu: float
    mbu_kv: float
    step_us: float
    seq_us: float
    allreduce_us: float
    link_gb_per_s: float
    layer_us: float = 0.0
    exponent: float = SMAX_EXPONENT
    prefill_factor: float = 1.0
    decode_factor: float = 1.0


PRIOR_NAMES = frozenset(f.name for f in fields(Priors))


@dataclass(frozen=True, slots=True)
class Override:
    """Measured constants for the backends that match; empty fields match everything.

    Attributes:
        gpu, engine, model, tensor_parallel: which backends.
        values: constants of ``Priors`` to replace, or a whole ``MeasuredCost`` by field, which
            replaces the iteration model.
    """

    values: Mapping[str, float]
    gpu: str = ""
    engine: str = ""
    model: str = ""
    tensor_parallel: int = 0

    def __post_init__(self) -> None:
        measured_cost(self.values)
        for name, value in self.values.items():
            if name in MEASURED_NAMES:
                continue
            if name not in PRIOR_NAMES:
                known = ", ".join(sorted(PRIOR_NAMES | MEASURED_NAMES))
                raise ConfigError(f"override: unknown constant {name!r}; known: {known}")
            if not value >= (0.0 if name.endswith("_us") else 1e-9):
                raise ConfigError(f"override: {name} must be positive, not {value}")

    def matches(self, spec: BackendSpec) -> bool:
        """Whether this override speaks of that backend."""
        wanted = (self.gpu, self.engine, self.model, self.tensor_parallel)
        actual = (spec.gpu, spec.engine, spec.model, spec.tensor_parallel)
        return all(not want or want == have for want, have in zip(wanted, actual, strict=True))


def priors_for(spec: BackendSpec, gpu: GpuSpec, overrides: Sequence[Override] = ()) -> Priors:
    """Constants of a backend; later overrides win over earlier ones."""
    v0 = resolve_scheduler(spec, gpu) == "vllm-v0"
    modern = gpu.mfu if spec.tensor_parallel == 1 else gpu.mfu_tp
    priors = Priors(
        mfu=gpu.mfu_v0 if v0 else modern,
        mfu_attn=gpu.mfu_attn,
        mbu=gpu.mbu,
        mbu_kv=gpu.mbu_kv,
        step_us=V0_STEP_US if v0 else STEP_US,
        seq_us=SEQ_US,
        allreduce_us=gpu.allreduce_us,
        link_gb_per_s=gpu.link_gb_per_s,
    )
    for override in overrides:
        if override.matches(spec):
            known = {k: v for k, v in override.values.items() if k in PRIOR_NAMES}
            priors = replace(priors, **known)
    return priors


def measured_for(spec: BackendSpec, overrides: Sequence[Override]) -> MeasuredCost | None:
    """The measured iteration of a backend, the last that matches; ``None`` if there is none."""
    found = [measured_cost(o.values) for o in overrides if o.matches(spec)]
    return next((cost for cost in reversed(found) if cost is not None), None)


def iteration_model_from(
    priors: Priors,
    gpu: GpuSpec,
    model: ModelSpec,
    quantization: QuantizationSpec,
    tensor_parallel: int = 1,
) -> IterationModel:
    """The iteration model of a model on ``tensor_parallel`` cards, from its constants."""
    cards = tensor_parallel
    bandwidth = gpu.bandwidth_gb_per_s * 1e9
    gemm_flops = cards * quantization.peak_flops(gpu) * priors.mfu * quantization.compute_efficiency
    token_s = 2.0 * model.active_parameters / gemm_flops
    stream_bytes_per_s = cards * bandwidth * priors.mbu * quantization.bandwidth_efficiency
    attention_flops = cards * gpu.fp16_tflops * 1e12 * priors.mfu_attn
    comm_s = _allreduce_token_s(priors, model, cards)
    per_layer_us = priors.layer_us + (2 * priors.allreduce_us if cards > 1 else 0.0)
    return IterationModel(
        step_s=(priors.step_us + model.layers * per_layer_us) * 1e-6,
        seq_s=priors.seq_us * 1e-6 + comm_s,
        prefill_comm_s=comm_s,
        weights_s=quantization.streamed_bytes(model) / stream_bytes_per_s,
        prefill_token_s=token_s,
        decode_token_s=token_s,
        context_s=model.kv_bytes_per_token(cards) / (bandwidth * priors.mbu_kv),
        pair_s=4.0 * model.layers * model.query_size / attention_flops,
        exponent=priors.exponent,
    ).scaled(priors.prefill_factor, priors.decode_factor)


def _allreduce_token_s(priors: Priors, model: ModelSpec, cards: int) -> float:
    """Two all-reduces per layer of one token's hidden state, 16 bit, as a ring moves it."""
    if cards == 1:
        return 0.0
    ring_bytes = model.hidden_size * 2.0 * 2.0 * (cards - 1) / cards
    return 2 * model.layers * ring_bytes / (priors.link_gb_per_s * 1e9)
