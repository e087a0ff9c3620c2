"""How long the iterations of a continuous-batching engine take on this GPU, over a grid of work.

``python -m benchmarks.gpu.measure --model llama-3.1-8b --out out/gpu`` needs a CUDA card, PyTorch
and nothing else, and takes some minutes. It times whole iterations of ``benchmarks.gpu.llama``
(host included, tokens read back) with decodes alone, prompts alone and both, each point in two
passes of random order; then serves Poisson traffic. Every row is written as soon as it is known.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import astuple, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
import triton

from benchmarks.gpu import check
from benchmarks.gpu.llama import Chunk, Engine
from benchmarks.gpu.shapes import PAGE_TOKENS, SHAPES, Shape
from benchmarks.gpu.traffic import Ask, Iteration, poisson, serve

MAX_PROMPT_TOKENS = 12_288
MAX_SEQS, MAX_TOKENS = 256, 8192 + 256
MOST_CACHE_TOKENS = 600_000
SPARE_BYTES = 6 << 30
"""Left for activations and graphs."""
WARM_UP, LEAST_REPEATS, MOST_REPEATS, POINT_S = 2, 5, 15, 0.2

COLUMNS = (
    "pass",
    "prefill_tokens",
    "done_tokens",
    "decode_seqs",
    "context_tokens",
    "prefill_pairs",
    "time_s",
    "p10_s",
    "p90_s",
    "repeats",
)


@dataclass(frozen=True)
class Point:
    """One kind of iteration.

    Attributes:
        prompt_tokens, done_tokens: tokens of one prompt computed now, and before.
        seqs, context: decoding sequences, and tokens that each attends to.
    """

    prompt_tokens: int
    done_tokens: int
    seqs: int
    context: int

    @property
    def cache_tokens(self) -> int:
        pages = -(-self.context // PAGE_TOKENS)
        return self.seqs * pages * PAGE_TOKENS + MAX_PROMPT_TOKENS


def grid() -> list[Point]:
    """All points, alike for every card; those that do not fit are left out."""
    decode = (1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)
    points = [Point(0, 0, b, c) for b in decode for c in (128, 512, 1024, 2048, 4096, 8192)]
    prompts = (16, 64, 128, 256, 512, 1024, 2048, 4096, 8192)
    points += [Point(n, done, 0, 0) for n in prompts for done in (0, 1024, 4096)]
    for n in (64, 128, 256, 512, 1024, 2048):
        points += [Point(n, 0, b, c) for b in (8, 32, 64, 128, 256) for c in (512, 2048)]
    return points


def time_point(engine: Engine, point: Point, rng: random.Random) -> list[float]:
    """Seconds of each repetition."""
    pages = -(-point.context // PAGE_TOKENS)
    first = MAX_PROMPT_TOKENS // PAGE_TOKENS
    order = list(range(first, engine.cache_tokens // PAGE_TOKENS))
    table = np.array(rng.sample(order, point.seqs * pages), dtype=np.int32)
    table = table.reshape(point.seqs, pages)
    engine.tables[: point.seqs, :pages] = torch.from_numpy(table).to(engine.device)
    at = point.context - 1
    own = table[:, at // PAGE_TOKENS] * PAGE_TOKENS + at % PAGE_TOKENS if point.seqs else []
    prompt = np.arange(point.done_tokens, point.done_tokens + point.prompt_tokens)
    rows = point.seqs + point.prompt_tokens
    given = (
        np.array([rng.randrange(engine.shape.vocab) for _ in range(rows)], dtype=np.int32),
        np.concatenate([np.full(point.seqs, at), prompt]).astype(np.int32),
        np.concatenate([own, prompt]).astype(np.int32),
    )
    chunk = [Chunk(0, point.done_tokens, point.prompt_tokens)] if point.prompt_tokens else []
    times: list[float] = []
    for k in range(WARM_UP + MOST_REPEATS):
        start_s = time.perf_counter()
        engine.step(*given, point.seqs, chunk)
        times.append(time.perf_counter() - start_s)
        measured = times[WARM_UP:]
        if k >= WARM_UP + LEAST_REPEATS - 1 and sum(measured) > POINT_S:
            break
    return times[WARM_UP:]


def measure_grid(engine: Engine, points: Iterable[Point], passes: int, out: IO[str]) -> None:
    rng = random.Random(1)
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    fitting = [p for p in points if p.cache_tokens <= engine.cache_tokens]
    for turn in range(passes):
        for point in rng.sample(fitting, len(fitting)):
            times = sorted(time_point(engine, point, rng))
            n = point.prompt_tokens
            tenth = max(1, len(times) // 10)
            spread = (statistics.median(times), times[tenth - 1], times[-tenth])
            pairs = n * (point.done_tokens + n / 2)
            work = (n, point.done_tokens, point.seqs, point.seqs * point.context, pairs)
            writer.writerow((turn, *work, *(f"{t:.7f}" for t in spread), len(times)))
            out.flush()


def measure_traffic(engine: Engine, plan: str, folder: Path, name: str) -> None:
    """Serve each part of the plan, "requests/s x seconds, ...", after the other."""
    for k, part in enumerate(plan.split(",")):
        rate, seconds = (float(word) for word in part.split("x"))
        asks = poisson(rate, seconds, seed=k)
        iterations = list(serve(engine, asks))
        _write(folder / f"{name}_traffic{k}_iterations.csv", Iteration, iterations)
        _write(folder / f"{name}_traffic{k}_requests.csv", Ask, asks)
        print(f"{name}: {len(asks)} requests in {len(iterations)} iterations", flush=True)


def _write(path: Path, kind: Any, rows: Sequence[Any]) -> None:
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(f.name for f in fields(kind))
        writer.writerows(_cells(astuple(row)) for row in rows)


def _cells(values: Iterable[object]) -> Iterator[object]:
    for value in values:
        yield f"{value:.7g}" if isinstance(value, float) else value


def machine() -> dict[str, Any]:
    """The card as it is found, and what its memory and its matrix unit reach."""
    properties = torch.cuda.get_device_properties(0)
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "gpu": properties.name,
        "memory_bytes": properties.total_memory,
        "processors": properties.multi_processor_count,
        "python": sys.version.split()[0],
        "torch": torch.__version__,
        "triton": triton.__version__,
        "nvidia_smi": sensors(),
        "copy_bytes_per_s": _copy_rate(),
        "bf16_flop_per_s": _matrix_rate(),
    }


def sensors() -> str:
    """Driver, clocks, power and temperature: read, never set."""
    what = (
        "driver_version,clocks.sm,clocks.max.sm,clocks.mem,power.draw,power.limit,temperature.gpu"
    )
    command = ["nvidia-smi", f"--query-gpu={what}", "--format=csv"]
    try:
        told = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        return str(error)
    return told.stdout.strip()


def _copy_rate() -> float:
    source = torch.randn(1 << 30, device="cuda")
    target = torch.empty_like(source)
    return 2 * source.nbytes / _seconds(lambda: target.copy_(source))


def _matrix_rate() -> float:
    one, other = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    return 2 * 8192**3 / _seconds(lambda: torch.mm(one, other))


def _seconds(work: Any) -> float:
    return float(triton.testing.do_bench(work, warmup=50, rep=200, return_mode="median")) * 1e-3


def build(shape: Shape, device: str, dtype: torch.dtype, cache_tokens: int) -> Engine:
    if not cache_tokens:
        token_bytes = 2 * shape.layers * shape.kv_heads * shape.head_dim * 2
        weights = shape.layers * (3 * shape.mlp + 3 * shape.hidden) * shape.hidden * 2
        weights += 2 * shape.vocab * shape.hidden * 2
        room = torch.cuda.mem_get_info()[0] - weights - SPARE_BYTES
        cache_tokens = min(MOST_CACHE_TOKENS, room // token_bytes)
    return Engine(
        shape,
        cache_tokens=cache_tokens,
        max_seqs=MAX_SEQS,
        max_tokens=MAX_TOKENS,
        max_context=MAX_PROMPT_TOKENS,
        device=device,
        dtype=dtype,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=SHAPES, default="llama-3.1-8b")
    parser.add_argument("--out", type=Path, default=Path("out/gpu"))
    parser.add_argument("--passes", type=int, default=2)
    parser.add_argument("--traffic", default="8x40,15x40", help="requests/s x seconds, ...")
    parser.add_argument("--device", default="cuda", help="cpu: to try it, with TRITON_INTERPRET=1")
    parser.add_argument("--points", type=int, default=0, help="only so many of the grid")
    parser.add_argument("--cache-tokens", type=int, default=0, help="default: what fits")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    cuda = args.device == "cuda"
    dtype = torch.bfloat16 if cuda else torch.float32
    about = {"command": " ".join(sys.argv), "model": args.model, **(machine() if cuda else {})}
    started_s = time.perf_counter()

    def note(**more: Any) -> None:
        about.update(more)
        about[f"{next(iter(more))}_at_s"] = round(time.perf_counter() - started_s, 1)
        (args.out / f"{args.model}_machine.json").write_text(json.dumps(about, indent=1) + "\n")
        print(json.dumps(more), flush=True)

    if cuda:
        wrong = check.errors(args.device, dtype)
        note(check=wrong)
        if not all(error < check.TOLERANCE[dtype] for error in wrong.values()):
            sys.exit(f"the engine computes something else: {wrong}")
    engine = build(SHAPES[args.model], args.device, dtype, args.cache_tokens)
    note(cache_tokens=engine.cache_tokens)
    if cuda:
        torch.cuda.empty_cache()
        engine.warm_up()
        note(graphs=len(engine._graphs), free_bytes=torch.cuda.mem_get_info()[0])
    points = grid()
    if args.points:
        points = random.Random(0).sample(points, args.points)
    with (args.out / f"{args.model}_grid.csv").open("w", newline="") as stream:
        measure_grid(engine, points, args.passes, stream)
    note(after_grid=sensors() if cuda else "")
    if args.traffic:
        measure_traffic(engine, args.traffic, args.out, args.model)
        note(after_traffic=sensors() if cuda else "")


if __name__ == "__main__":
    main()
