"""From what drivers, clouds and node labels call a card to its name in the catalogue."""

from __future__ import annotations

import re
from collections.abc import Iterable

_SMALLEST_USUAL_GB = {"a100": 40, "v100": 16}
"""What is meant where no size is told: GKE's ``nvidia-tesla-a100`` and ``-v100``."""


def gpu_of(told: str, known: Iterable[str], memory_gb: float | None = None) -> str | None:
    """The catalogue's name of a card.

    Args:
        told: "NVIDIA-A100-SXM4-80GB" (nvidia.com/gpu.product), "nvidia-tesla-t4" (GKE), "a10g"
            (Karpenter), "NVIDIA H100 80GB HBM3" (SGLang's ``accelerator``), or the name itself.
        known: names in the catalogue: "t4", "a100-80".
        memory_gb: of the card, where it is told beside the name.

    Returns:
        ``None`` if no name in the catalogue, or more than one, fits.
    """
    lowered = told.strip().lower()
    names = list(known)
    if lowered in names:
        return lowered
    words = [word for word in re.split(r"[^a-z0-9]+", lowered) if word]
    family = [name for name in names if name.partition("-")[0] in words]
    if len(family) < 2:
        return family[0] if family else None
    size = _size_gb(words) or memory_gb or _SMALLEST_USUAL_GB.get(family[0].partition("-")[0])
    if size is None:
        return None
    # Drivers count a little less than the label on the box: 81,251 MiB are "80 GB".
    near = [name for name in family if abs(float(name.partition("-")[2] or 0) - size) <= 0.1 * size]
    return near[0] if len(near) == 1 else None


def _size_gb(words: Iterable[str]) -> float | None:
    for word in words:
        match = re.fullmatch(r"(\d+)gb?", word)
        if match:
            return float(match[1])
    return None
