"""How much a second of latency counts for a request: by the targets of its class.

The tightest target of its kind (TTFT, TPOT, E2E) among the classes is the measure. Of a class
whose targets are all looser, latencies count as so much shorter: where 0.25 s a token will do and
another class wants 0.1, ten seconds count as four. Who has no target is not to be starved either;
his seconds count a fifth. Targets for the beginning and the pace of an answer stand for one of E2E
where there is none, so that a class that has no other can be compared. Targets of a request's own
may make it less urgent than its class, never more: it would jump the queue of all the others.
"""

from __future__ import annotations

from collections.abc import Mapping

from router.domain.slo import Slo

LEAST = 0.2
TYPICAL_OUTPUT_TOKENS = 250
"""Of the answer whose E2E stands for targets of TTFT and TPOT."""

Targets = tuple[float | None, float | None, float | None]


class Urgency:
    """The weight of a second by service class, from ``LEAST`` to 1.

    Args:
        slos: targets by class, perhaps others for some models.
    """

    def __init__(self, slos: Mapping[str, Slo]) -> None:
        named = {model for slo in slos.values() for model in slo.models}
        self._elsewhere = _Among(slos)
        self._of_model = {
            model: _Among({name: slo.of_model(model) for name, slo in slos.items()})
            for model in named
        }

    def of(self, slo_class: str, slo: Slo | None, model: str) -> float:
        """Of a request.

        Args:
            slo_class: its class; one that nobody has set targets for is as urgent as any.
            slo: targets of its own, if they differ from those of its class.
            model: what it asks for.
        """
        among = self._of_model.get(model, self._elsewhere) if self._of_model else self._elsewhere
        counts = among.of_class.get(slo_class, 1.0)
        return counts if slo is None else min(counts, among.of(slo))


class _Among:
    """The classes' targets for one model, side by side."""

    def __init__(self, slos: Mapping[str, Slo]) -> None:
        columns = zip(*map(_targets, [*slos.values(), Slo("")]), strict=True)
        known = ([target for target in column if target is not None] for column in columns)
        self._tightest = [min(targets, default=None) for targets in known]
        self.of_class = {name: self.of(slo) for name, slo in slos.items()}

    def of(self, slo: Slo) -> float:
        if not any(self._tightest):  # there is nobody to give way to
            return 1.0
        shares = [
            tightest / own
            for tightest, own in zip(self._tightest, _targets(slo), strict=True)
            if tightest is not None and own is not None
        ]
        return min(max(LEAST, *shares), 1.0) if shares else LEAST


def _targets(slo: Slo) -> Targets:
    e2e_s = slo.e2e_s
    if e2e_s is None and slo.tpot_s is not None:
        e2e_s = (slo.ttft_s or 0.0) + TYPICAL_OUTPUT_TOKENS * slo.tpot_s
    return slo.ttft_s, slo.tpot_s, e2e_s
