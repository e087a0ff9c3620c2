"""Service classes and their latency targets."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Slo:
    """Latency targets of one class, in seconds; ``None`` means no target."""

    name: str
    ttft_s: float | None = None
    tpot_s: float | None = None
    e2e_s: float | None = None

    def met(self, *, ttft_s: float, tpot_s: float, e2e_s: float) -> bool:
        """Whether one finished request kept all its targets."""
        return (
            (self.ttft_s is None or ttft_s <= self.ttft_s)
            and (self.tpot_s is None or tpot_s <= self.tpot_s)
            and (self.e2e_s is None or e2e_s <= self.e2e_s)
        )


DEFAULT_SLOS: dict[str, Slo] = {
    "interactive": Slo("interactive", ttft_s=2.0, tpot_s=0.1),
    "throughput": Slo("throughput", ttft_s=10.0, tpot_s=0.25),
    "bulk": Slo("bulk"),
}
"""Targets used when the YAML names none. TTFT 2 s and TPOT 100 ms are what readers bear
(about 10 tokens/s, twice the reading speed of 4.8 tokens/s used by Andes)."""
