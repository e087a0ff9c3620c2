"""Shared by the perf tests: short backends, and the measured tables where they exist."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from router.domain.fleet import BackendSpec
from router.perf.profiles import default_folder


def backend(gpu: str = "a100-80", model: str = "llama-3.1-8b", **settings: Any) -> BackendSpec:
    settings.setdefault("engine", "vllm")
    return BackendSpec(name=settings.pop("name", gpu), gpu=gpu, model=model, **settings)


@pytest.fixture(scope="session")
def measured_tables() -> Path:
    folder = default_folder()
    if not (folder / "helix_iteration_times.csv").is_file():
        pytest.skip(f"no measured tables in {folder}; set MOTLEY_SHARED")
    return folder
