"""A continuous-batching engine in a page: the truth that the learners must find.

One iteration after another, each as long as the true ``LinearCost`` says; first come first
served; prompts chunked beside the decodes (vLLM) or in iterations of their own (SGLang).
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from router.domain.outcome import Meanwhile, Outcome
from router.domain.state import LinearCost
from telemetry.sightings import VLLM_LIKE, EngineShape

Speed = Callable[[float], tuple[float, float]]


@dataclass(slots=True)
class Job:
    at_s: float
    prompt: int
    output: int
    prefilling: int = 0
    decoding: int = 0
    left: int = 0
    done: int = 0
    first_s: float | None = None
    before: Meanwhile | None = None


def poisson(rng: random.Random, per_s: float, until_s: float) -> list[Job]:
    """Arrivals with log-normal lengths as in chat traffic."""
    jobs, now = [], 0.0
    while (now := now + rng.expovariate(per_s)) < until_s:
        prompt = int(min(4000, 20 + rng.lognormvariate(5.8, 0.9)))
        jobs.append(Job(now, prompt, int(min(800, 4 + rng.lognormvariate(4.6, 0.7)))))
    return jobs


def serve(
    jobs: list[Job],
    cost: LinearCost,
    *,
    shape: EngineShape = VLLM_LIKE,
    speed: Speed = lambda now: (1.0, 1.0),
    overhead_s: float = 0.0,
    backend: str = "b",
) -> Iterator[Outcome]:
    """Run the jobs and yield their outcomes as they finish; ``speed`` gives the (prefill,
    decode) slowdown at a time."""
    coming, prefill, decode, now = deque(jobs), deque[Job](), list[Job](), 0.0
    work = Meanwhile(0.0, 0.0, 0, 0, 0.0)
    while coming or prefill or decode:
        if not prefill and not decode:
            now = max(now, coming[0].at_s)
        start_s = now
        chunk, batch = _plan(prefill, decode, shape)
        slow = cost.scaled(prefill=speed(now)[0], decode=speed(now)[1])
        context = sum(job.prompt + job.done for job in batch)
        if chunk or batch:
            pairs = sum(n * (job.prompt - job.left + n / 2) for job, n in chunk)
            now += slow.iteration_s(sum(n for _, n in chunk), len(batch), context, pairs)
        while coming and coming[0].at_s <= now:
            job = coming.popleft()
            job.prefilling, job.decoding, job.left = len(prefill), len(decode), job.prompt
            prefill.append(job)
        ended = [job for job, tokens in chunk if job.left == tokens]
        work = Meanwhile(
            now,
            work.seq_s + len(decode) * (now - work.seconds),
            work.prefills + bool(ended),
            work.prefill_tokens + sum(job.prompt for job in ended),
            work.prefill_pairs + sum(job.prompt**2 / 2 for job in ended),
        )
        for job in batch:
            job.done += 1
        for job, tokens in chunk:
            job.left -= tokens
            if job.left == 0:
                prefill.remove(job)
                job.first_s, job.done, job.before = now, 1, work
                decode.append(job)
        for job in [job for job in decode if job.done >= job.output]:
            decode.remove(job)
            yield _outcome(job, now, overhead_s, backend, work)
        assert now > start_s or prefill


def _plan(
    prefill: deque[Job], decode: list[Job], shape: EngineShape
) -> tuple[list[tuple[Job, int]], list[Job]]:
    batch = list(decode) if shape.mixed or not prefill else []
    budget, chunk = shape.chunk_tokens - len(batch), []
    for job in prefill:
        if budget <= 0:
            break
        tokens = min(job.left, budget)
        chunk.append((job, tokens))
        budget -= tokens
    return chunk, batch


def _outcome(job: Job, now: float, overhead_s: float, backend: str, work: Meanwhile) -> Outcome:
    assert job.first_s is not None
    assert job.before is not None
    return outcome(
        backend=backend,
        dispatched_s=job.at_s,
        first_s=job.first_s + overhead_s,
        finished_s=now + overhead_s,
        prompt=job.prompt,
        output=job.output,
        prefilling=job.prefilling,
        decoding=job.decoding,
        meanwhile=Meanwhile(*(now - then for now, then in zip(work, job.before, strict=True))),
    )


def outcome(
    *,
    backend: str = "b",
    status: str = "completed",
    dispatched_s: float = 0.0,
    first_s: float | None = 0.1,
    finished_s: float = 1.0,
    prompt: int = 100,
    output: int = 50,
    cached: int | None = None,
    prefilling: int = 0,
    decoding: int = 0,
    predicted_ttft_s: float = 0.1,
    predicted_tpot_s: float = 0.02,
    model: str = "m",
    tenant: str = "",
    slo_class: str = "interactive",
    meanwhile: Meanwhile | None = None,
    fresh: int = 0,
) -> Outcome:
    """An outcome with everything that a test does not care about filled in.

    It was alone unless ``meanwhile`` says otherwise.
    """
    if meanwhile is None and first_s is not None:
        alone_s = finished_s - first_s
        meanwhile = Meanwhile(alone_s, alone_s, 0, 0, 0.0)
    return Outcome(
        request_id="r",
        model=model,
        slo_class=slo_class,
        tenant=tenant,
        backend=backend,
        status=status,  # type: ignore[arg-type]
        arrival_s=dispatched_s,
        dispatched_s=dispatched_s,
        first_token_s=first_s,
        finished_s=finished_s,
        prompt_tokens=prompt,
        output_tokens=output,
        cached_tokens=cached,
        max_tokens=None,
        prefilling_at_dispatch=prefilling,
        decoding_at_dispatch=decoding,
        predicted_ttft_s=predicted_ttft_s,
        predicted_tpot_s=predicted_tpot_s,
        predicted_output_tokens=float(output),
        fresh_tokens=fresh,
        meanwhile=meanwhile,
    )
