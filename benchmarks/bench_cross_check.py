"""``motley bench`` beside GuideLLM on one server: the same prompts, lengths and arrivals, in turns.

::

    python -m benchmarks.bench_cross_check                     an emulated A100 with vLLM
    python -m benchmarks.bench_cross_check --url URL --model M a server of yours

GuideLLM is installed into ``.peers/guidellm`` (5 GB: it brings PyTorch along), or taken from
``--guidellm``. What one calls ITL the other calls TPOT: the time per token after the first. A
difference is noise if it is smaller than what one tool's own rounds differ by.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import venv
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from random import Random
from statistics import fmean
from typing import Any

import numpy as np

from router.config.load import load_config
from simulator.bench.drive import WORDS
from simulator.bench.plan import Closed, Lengths, Open, jobs
from simulator.engine_server.host import EngineHost

ROOT = Path(__file__).resolve().parents[1]
HOME = ROOT / ".peers" / "guidellm"
PACKAGE = "guidellm==0.8.1"
MODEL = "llama-3.1-8b"
INPUT_TOKENS, OUTPUT_TOKENS = 512, 128
SALT = 0xBE4C
"""What ``motley bench`` draws its lengths with, beside the seed."""
WORDS_OF_A_PROMPT = 346
"""As many tokens to the emulated engine, which counts a token for every four bytes."""
EIGHT = "kind=concurrent,streams=8"


@dataclass(frozen=True, slots=True)
class Load:
    """One way of sending, in the words of both tools.

    Attributes:
        profile: GuideLLM's.
        flags: ours.
        drawn_from: the same load, for drawing the lengths as ``motley bench`` does.
        spread: how far prompts and answers vary in length, either way.
    """

    profile: str
    flags: tuple[str, ...]
    drawn_from: Closed | Open
    spread: float = 0.0


LOADS = {
    "8 users": Load(EIGHT, ("--concurrency", "8"), Closed(8), spread=0.5),
    "8 users in step": Load(EIGHT, ("--concurrency", "8"), Closed(8)),
    "4 requests/s": Load(
        "kind=constant,rate=4", ("--rate", "4", "--burstiness", "0"), Open(4.0, 0.0)
    ),
}
"""In step: all answers are equally long, so all eight users ask again in the same moment, every
time, and it is chance who is first in the engine's next batch and who waits for the one after."""
FIGURES = {
    "TTFT, ms": ("ttft_s", "time_to_first_token_ms", 1000.0),
    "TPOT, ms": ("tpot_s", "inter_token_latency_ms", 1000.0),
    "E2E, s": ("e2e_s", "request_latency", 1.0),
}
PARTS = ("mean", "p50", "p99")
TOKENIZER = """
import sys
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast
words = {word: number for number, word in enumerate(["<unk>", "</s>", *sys.argv[2:]])}
inner = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
whole = PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="<unk>", eos_token="</s>")
whole.save_pretrained(sys.argv[1])
"""
"""GuideLLM wants a tokenizer, though the server counts."""


def install() -> Path:
    """GuideLLM's program, installed if it is not."""
    if not (HOME / ".ready").exists():
        print(f"installing {PACKAGE} (5 GB)", file=sys.stderr)
        venv.create(HOME, with_pip=True, clear=True)
        pip = [str(HOME / "bin" / "python"), "-m", "pip", "install", "-q", PACKAGE]
        subprocess.run(pip, check=True)
        (HOME / ".ready").touch()
    return HOME / "bin" / "guidellm"


@contextmanager
def emulated() -> Iterator[str]:
    """An emulated A100; yields its URL."""
    config = load_config({"backends": [{"gpu": "a100-80", "engine": "vllm", "model": MODEL}]})
    with EngineHost(config.fleet.backends) as engines:
        engines.start(speed=1.0, seed=0, load=None)
        engines.wait_until_ready()
        yield next(iter(engines.urls.values()))


@dataclass(frozen=True, slots=True)
class Server:
    """What is tested, and how long the prompts are in words."""

    url: str
    model: str
    requests: int
    words: int


def rows(server: Server, load: Load, seed: int) -> Iterator[str]:
    """GuideLLM's data: lengths as ``motley bench`` draws them, words that no cache knows."""
    rng = Random(seed)
    lengths = Lengths(INPUT_TOKENS, OUTPUT_TOKENS, load.spread)
    drawn = np.random.default_rng([seed, SALT])
    for job in jobs(server.requests, lengths, load.drawn_from, drawn):
        words = rng.choices(WORDS, k=round(server.words * job.input_tokens / INPUT_TOKENS))
        row = {"prompt": " ".join(words), "output_tokens_count": job.output_tokens}
        yield json.dumps(row) + "\n"


def by_motley(server: Server, load: Load, seed: int) -> dict[str, Any]:
    """One run; percentiles in seconds."""
    program = str(Path(sys.executable).parent / "motley")
    lengths = ["--input-tokens", str(INPUT_TOKENS), "--output-tokens", str(OUTPUT_TOKENS)]
    words = [program, "bench", server.url, "--model", server.model, "--seed", str(seed)]
    words += ["-n", str(server.requests), *load.flags, *lengths, "--spread", str(load.spread)]
    done = subprocess.run([*words, "--json", "-"], check=True, capture_output=True, text=True)
    found: dict[str, Any] = json.loads(done.stdout)
    assert not found["failed"], found["errors"]
    figures = {
        name: {part: found[key][part] * scale for part in PARTS}
        for name, (key, _, scale) in FIGURES.items()
    }
    return {**figures, "in": found["input_tokens"], "out": found["output_tokens"]}


def by_guidellm(
    program: Path, server: Server, load: Load, seed: int, folder: Path
) -> dict[str, Any]:
    """One run; percentiles in seconds."""
    data = folder / "prompts.jsonl"
    with data.open("w") as file:
        file.writelines(rows(server, load, seed))
    out = folder / "guidellm.json"
    words_of = {
        "backend": f"kind=openai_http,target={server.url},model={server.model}",
        "profile": load.profile,
        "constraint": f"kind=max_requests,count={server.requests}",
        "tokenizer": f"kind=hf_auto,model={folder / 'tokenizer'}",
        "data": f"kind=json_file,path={data}",
        "output": f"kind=json,path={out}",
    }
    flags = [part for name, value in words_of.items() for part in (f"--{name}", value)]
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    done = subprocess.run(
        [str(program), "run", *flags, "--disable-console"],
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(f"guidellm: {done.stdout[-1500:]}{done.stderr[-1500:]}")
    metrics = json.loads(out.read_text())["benchmarks"][0]["metrics"]
    assert not metrics["request_totals"]["errored"], metrics["request_totals"]
    figures = {
        name: {
            part: metrics[key]["successful"]["mean"]
            if part == "mean"
            else metrics[key]["successful"]["percentiles"][part]
            for part in PARTS
        }
        for name, (_, key, _) in FIGURES.items()
    }
    counts = (metrics[f"{kind}_token_count"]["successful"]["mean"] for kind in ("prompt", "output"))
    return {**figures, **dict(zip(("in", "out"), counts, strict=True))}


def table(load: str, ours: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> Iterator[str]:
    """One row a figure: both tools, how far apart, and how far apart one tool's rounds are."""
    for name in FIGURES:
        for part in PARTS:
            mine, other = ([run[name][part] for run in runs] for runs in (ours, theirs))
            noise = max((max(runs) - min(runs)) / fmean(runs) for runs in (mine, other))
            apart = fmean(mine) / fmean(other) - 1.0
            cells = f"{fmean(mine):.4g} | {fmean(other):.4g} | {apart:+.1%} | {noise:.1%}"
            yield f"| {load} | {name} {part} | {cells} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--url", help="of a server of yours; an emulated engine by default")
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--requests", type=int, default=64)
    parser.add_argument(
        "--words", type=int, default=WORDS_OF_A_PROMPT, help="of GuideLLM's prompts"
    )
    parser.add_argument("--load", action="append", choices=LOADS, help="only this; may be repeated")
    parser.add_argument("--guidellm", type=Path, help="its program, if you have it")
    asked = parser.parse_args()
    program = asked.guidellm or install()
    print("| load | figure | motley bench | GuideLLM | difference | noise |")
    print("|---|---|--:|--:|--:|--:|", flush=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        python = str(program.parent / "python")
        words = [python, "-c", TOKENIZER, str(folder / "tokenizer"), *WORDS]
        subprocess.run(words, check=True, capture_output=True)
        with nullcontext(asked.url) if asked.url else emulated() as url:
            server = Server(url, asked.model, asked.requests, asked.words)
            loads = {name: LOADS[name] for name in asked.load or LOADS}
            compare(server, loads, asked.rounds, program, folder)


def compare(
    server: Server, loads: Mapping[str, Load], rounds: int, program: Path, folder: Path
) -> None:
    """All loads, the tools in turns."""
    notes = []
    for number, (name, load) in enumerate(loads.items()):
        ours, theirs = [], []
        for seed in range(rounds):
            fresh = rounds * number + seed + 1  # no prompt twice: the engine would know it
            ours.append(by_motley(server, load, fresh))
            theirs.append(by_guidellm(program, server, load, fresh, folder))
        print("\n".join(table(name, ours, theirs)), flush=True)
        tokens = [
            f"{fmean(run[way] for run in runs):.0f}"
            for way in ("in", "out")
            for runs in (ours, theirs)
        ]
        notes.append("{}: {} and {} tokens in, {} and {} out".format(name, *tokens))
    print(f"\n{'; '.join(notes)}; {rounds} rounds of {server.requests} requests each.")


if __name__ == "__main__":
    main()
