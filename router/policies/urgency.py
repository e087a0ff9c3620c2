"""How much a second of latency counts for a request: by the targets of its class.

The tightest target of its kind (TTFT, TPOT, E2E) among the classes is the measure. Of a class
whose targets are all looser, latencies count as so much shorter: where 0.25 s a token will do and
another class wants 0.1, ten seconds count as four. Who has no target is not to be starved either;
his seconds count a fifth.
"""

from __future__ import annotations

from collections.abc import Mapping

from router.domain.slo import Slo

LEAST = 0.2


class Urgency:
    """The weight of a second by service class, from ``LEAST`` to 1.

    Args:
        slos: targets by class.
    """

    def __init__(self, slos: Mapping[str, Slo]) -> None:
        columns = zip(*map(_targets, [*slos.values(), Slo("")]), strict=True)
        known = ([target for target in column if target is not None] for column in columns)
        self._tightest = [min(targets, default=None) for targets in known]
        self._of_class = {name: self._of(slo) for name, slo in slos.items()}

    def of(self, slo_class: str, slo: Slo | None) -> float:
        """Of a request.

        Args:
            slo_class: its class; one that nobody has set targets for is as urgent as any.
            slo: targets of its own, if they differ from those of its class.
        """
        return self._of_class.get(slo_class, 1.0) if slo is None else self._of(slo)

    def _of(self, slo: Slo) -> float:
        if not any(self._tightest):  # there is nobody to give way to
            return 1.0
        shares = [
            tightest / own
            for tightest, own in zip(self._tightest, _targets(slo), strict=True)
            if tightest is not None and own is not None
        ]
        return min(max(LEAST, *shares), 1.0) if shares else LEAST


def _targets(slo: Slo) -> tuple[float | None, float | None, float | None]:
    return slo.ttft_s, slo.tpot_s, slo.e2e_s
