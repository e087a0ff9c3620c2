"""From the names of drivers and clouds to the catalogue's."""

from __future__ import annotations

import pytest

from router.perf.catalog import gpu_names
from router.perf.gpu_names import gpu_of


@pytest.mark.parametrize(
    ("told", "memory_gb", "name"),
    [
        ("NVIDIA-A100-SXM4-80GB", None, "a100-80"),
        ("NVIDIA A100-PCIE-40GB", None, "a100-40"),
        ("A100-SXM4-40GB-MIG-1g.5gb", None, "a100-40"),
        ("nvidia-tesla-a100", None, "a100-40"),
        ("nvidia-a100-80gb", None, "a100-80"),
        ("a100", 79.3, "a100-80"),
        ("Tesla-V100-SXM2-32GB", None, "v100-32"),
        ("nvidia-tesla-v100", None, "v100-16"),
        ("Tesla-T4", None, "t4"),
        ("nvidia-tesla-t4", None, "t4"),
        ("NVIDIA-L4", None, "l4"),
        ("nvidia-l4", None, "l4"),
        ("NVIDIA-A10G", None, "a10g"),
        ("NVIDIA-L40S", None, "l40s"),
        ("NVIDIA H100 80GB HBM3", None, "h100"),
        ("h100", None, "h100"),
        ("NVIDIA-H200", None, "h200"),
        ("Radeon", None, None),
        ("", None, None),
    ],
)
def test_names(told: str, memory_gb: float | None, name: str | None):
    assert gpu_of(told, gpu_names(), memory_gb) == name
