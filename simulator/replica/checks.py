"""Small rules that both engines apply."""

from __future__ import annotations

from collections.abc import Container

from router.domain.errors import WorkloadError
from simulator.replica.job import Job
from simulator.replica.kv_cache import KvPool


def check_job(job: Job, known: Container[str]) -> None:
    """Refuse a job that makes no sense.

    Raises:
        WorkloadError: it names the job and what is wrong with it.
    """
    if job.prompt_tokens < 1 or job.output_tokens < 1:
        raise WorkloadError(
            f"job {job.job_id!r}: {job.prompt_tokens} prompt and {job.output_tokens} output "
            "tokens; both must be at least 1"
        )
    if job.prefix_hashes and job.prefix_block_tokens < 1:
        raise WorkloadError(f"job {job.job_id!r}: prefix_hashes without prefix_block_tokens")
    if job.job_id in known:
        raise WorkloadError(f"job {job.job_id!r} is already in this replica")


def hit_ratio(pool: KvPool) -> float | None:
    """Share of looked-up tokens that the prefix cache had; unknown before the first look-up."""
    return pool.hit_tokens / pool.queried_tokens if pool.queried_tokens else None
