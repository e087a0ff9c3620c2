"""Readers of the measured tables: which columns mean what, and what is left out and why.

The tables are tidied copies of public data sets; each row names its origin. They are not part of
this repository: ``default_folder`` says where they are looked for.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator
from pathlib import Path

from router.domain.errors import ConfigError
from router.domain.fleet import BackendSpec
from router.perf.measurements import (
    API_S,
    Measurement,
    Setup,
    Term,
    prefill_terms,
)

Row = dict[str, str]

GPUS = {
    "A100-40GB": "a100-40",
    "A100-80GB": "a100-80",
    "A100": "a100-40",
    "V100-16GB": "v100-16",
    "V100-SXM2-16GB": "v100-16",
    "T4": "t4",
    "L4": "l4",
    "A10": "a10g",
    "A40": "a40",
    "H100-80GB": "h100",
    "H100": "h100",
}
MODELS = {
    "llama-1-30b": "llama-30b",
    "llama-2-70b": "llama-2-70b",
    "llama2-70b": "llama-2-70b",
    "llama-2-7b": "llama-2-7b",
    "llama-3-8b": "llama-3-8b",
    "llama1_30b": "llama-30b",
    "llama2_70b": "llama-2-70b",
    "llama-7b": "llama-2-7b",
    "llama-13b": "llama-2-13b",
}

HELIX_CONTEXT_TOKENS = 870
"""Context per decoding sequence, inferred from Helix's workload (750 in, 240 out); the tables do
not state it."""
HELIX_MAX_ROUNDING = 0.10
"""Rows rounded more coarsely than this are dropped: they measure the clock."""
SPLITWISE_MAX_PREFILL_TOKENS = 2_048
"""Above it the 2023 engine ran several iterations, and the table times them together."""
TGIS_MAX_BATCH = 16
TGIS_MIN_SAMPLES = 50


def default_folder() -> Path:
    """``$MOTLEY_SHARED/data/profiles``, else ``../shared/data/profiles`` beside the clone."""
    shared = os.environ.get("MOTLEY_SHARED")
    root = Path(shared) if shared else Path(__file__).resolve().parents[3] / "shared"
    return root / "data" / "profiles"


def helix(folder: Path) -> list[Measurement]:
    """Iterations of a vLLM-kernel engine of 2024, whole model without output head.

    The composition of a prefill batch is not stated, so its attention (about 2 % of prompts of
    750 tokens) is left to the fitted share of the peak.
    """
    found = []
    for row in _rows(folder, "helix_iteration_times.csv"):
        time_s, tokens = float(row["time_s"]), int(row["batch_tokens"])
        if float(row["resolution_s"]) / 2 >= (HELIX_MAX_ROUNDING - 1e-9) * time_s:
            continue
        setup = _setup(row, "Helix (vLLM kernels 2024)", blocks_only=True)
        found.append(_iteration(setup, row["phase"], tokens, HELIX_CONTEXT_TOKENS, time_s))
    return found


def helix_kv(folder: Path) -> list[tuple[BackendSpec, int, int]]:
    """KV tokens that vLLM 0.4 resolved: backend, layers on the node, tokens.

    Each node held some layers of the model beside its embeddings.
    """
    return [
        (
            BackendSpec(
                name="node",
                gpu=GPUS[row["gpu"]],
                engine="vllm",
                model=MODELS[row["model"]],
                tensor_parallel=int(row["num_gpus"]),
                engine_version="0.4",
            ),
            int(row["layers_on_node"]),
            int(row["kv_tokens"]),
        )
        for row in _rows(folder, "helix_kv_capacity.csv")
    ]


def splitwise(folder: Path) -> list[Measurement]:
    """Iterations of vLLM 2023 on DGX machines; llama-2-70b only, the boards at full power."""
    found = []
    for row in _rows(folder, "splitwise_iteration_times.csv"):
        tokens = int(row["batch_tokens"])
        if row["model"] not in MODELS or row["gpu"] not in GPUS:
            continue
        if row["phase"] == "prefill" and tokens > SPLITWISE_MAX_PREFILL_TOKENS:
            continue
        setup = _setup(row, "Splitwise (vLLM 2023)")
        context = float(row["context_len"])
        found.append(_iteration(setup, row["phase"], tokens, context, float(row["time_s"])))
    return found


def vidur(folder: Path) -> list[Measurement]:
    """GEMM, norm and activation kernels alone: no attention, all-reduce, output head or CPU."""
    return [
        Measurement(
            _setup(row, "Vidur (kernels)", blocks_only=True),
            "prefill",
            (Term(float(row["batch_tokens"]), 0, 0.0),),
            float(row["time_s"]),
        )
        for row in _rows(folder, "vidur_linear_ops.csv")
    ]


def inference_bench(folder: Path) -> list[Measurement]:
    """TPOT of Qwen2.5-7B under 1 to 64 clients (ree2raz/inference-bench).

    True prompt lengths are not stored; half of the cap is assumed. TTFT is left out: its medians
    contain prefix-cache hits. AWQ on SGLang 0.4.6 ran without Marlin and is left out.
    """
    found = []
    for row in _rows(folder, "inference_bench_l4_a100_vllm_sglang.csv"):
        awq = "AWQ" in row["model"]
        if not row["tpot_p50_s"] or (awq and row["engine"] == "SGLang 0.4.6"):
            continue
        engine = row["engine"].replace(":latest ", "") + (" AWQ" if awq else "")
        quantization = "awq" if awq else "fp16"
        setup = Setup(GPUS[row["gpu"]], "qwen2.5-7b", engine, quantization=quantization)
        clients = int(row["concurrency"])
        context = clients * (int(row["max_input"]) / 2 + int(row["output"]) / 2)
        terms = (Term(0, clients, context),)
        found.append(Measurement(setup, "decode", terms, float(row["tpot_p50_s"])))
    return found


def web_points(folder: Path) -> list[Measurement]:
    """Single published figures of unquantized Llama-3.1-8B on vLLM, up to 16 clients."""
    found: list[Measurement] = []
    for row in _rows(folder, "web_reported_points.csv"):
        engine = row["engine"].split(" (")[0]
        plain = row["model"].startswith("Llama-3.1-8B") and "Q4" not in row["model"]
        clients = int(row["concurrency"]) if row["concurrency"].isdigit() else 0
        if not plain or row["gpu"] not in GPUS or not engine.startswith("vLLM 0."):
            continue
        setup = Setup(GPUS[row["gpu"]], "llama-3.1-8b", engine, int(row["num_gpus"]))
        if 1 <= clients <= 16:
            found.extend(_web_point(setup, row, clients))
    return found


def _web_point(setup: Setup, row: Row, clients: int) -> Iterator[Measurement]:
    # "chatbot-short" states no lengths; 128 in and out are assumed (0.2 % of its TPOT per 100).
    prompt = int(row["in_tokens"]) if row["in_tokens"].isdigit() else 128
    output = int(row["out_tokens"]) if row["out_tokens"].isdigit() else 128
    value = float(row["value"])
    decode = (Term(0, clients, clients * (prompt + output / 2)),)
    if row["metric"] == "tpot_p50_ms":
        yield Measurement(setup, "decode", decode, value / 1e3)
    elif row["metric"] == "decode_tok_s" and clients == 1:
        yield Measurement(setup, "decode", decode, 1.0 / value)
    elif row["metric"] == "ttft_ms" and clients == 1:
        yield Measurement(setup, "prefill", prefill_terms(prompt, 2_048), value / 1e3, API_S)


def tgis(folder: Path) -> list[Measurement]:
    """Median gaps between tokens of IBM's TGIS of 2023 (LLM-Pilot), up to 16 users.

    Only while all users decode: at other batch sizes the median gap is a prefill stall.
    """
    found = []
    for row in _rows(folder, "ibm_llmpilot_itl_vs_batch.csv"):
        name = row["model"].split("/")[-1]
        batch, context = int(row["batch_size"]), float(row["mean_in"]) + float(row["mean_out"]) / 2
        if name not in MODELS or row["gpu"] not in GPUS:
            continue
        if batch != int(row["num_users"]) or int(row["n"]) < TGIS_MIN_SAMPLES:
            continue
        if batch > TGIS_MAX_BATCH:
            continue
        setup = Setup(GPUS[row["gpu"]], MODELS[name], "TGIS 2023", int(row["num_gpus"]))
        terms = (Term(0, batch, batch * context),)
        found.append(Measurement(setup, "decode", terms, float(row["itl_ms_p50"]) / 1e3))
    return found


def _iteration(
    setup: Setup, phase: str, tokens: int, context_tokens: float, time_s: float
) -> Measurement:
    if phase == "prefill":
        pairs = tokens * tokens / 2 if not setup.blocks_only else 0.0
        return Measurement(setup, "prefill", (Term(tokens, 0, 0.0, pairs),), time_s)
    return Measurement(setup, "decode", (Term(0, tokens, tokens * context_tokens),), time_s)


def _setup(row: Row, engine: str, *, blocks_only: bool = False) -> Setup:
    return Setup(
        gpu=GPUS[row["gpu"]],
        model=MODELS[row["model"]],
        engine=engine,
        tensor_parallel=int(row["num_gpus"]),
        blocks_only=blocks_only,
    )


def _rows(folder: Path, file: str) -> Iterator[Row]:
    path = folder / file
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            yield from csv.DictReader(stream)
    except OSError as error:
        raise ConfigError(
            f"cannot read {path}: {error.strerror}; name the folder of measured tables with --data"
        ) from error
