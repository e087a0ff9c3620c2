"""Part of a trace for choosing, the rest for judging."""

from __future__ import annotations

from router.domain.errors import TraceError
from simulator.traces.columns import Trace
from simulator.traces.read import Window, cut


def hold_back(trace: Trace, share: float) -> tuple[Trace, Trace]:
    """The beginning, to choose by, and the last ``share`` of the time, which nobody chose by.

    Raises:
        TraceError: a share that leaves nothing on one side.
    """
    if not 0 < share < 1:
        raise TraceError(f"the share to hold back must lie between 0 and 1, not {share:g}")
    first_s, last_s = trace.arrival_s[0], trace.arrival_s[len(trace) - 1]
    at_s = (last_s - first_s) * (1.0 - share)
    chosen = Trace(trace.name).extend(cut(trace.records(), Window(0.0, at_s)))
    held = Trace(f"{trace.name}, held back").extend(cut(trace.records(), Window(at_s, None)))
    if not len(chosen) or not len(held):
        raise TraceError("too short to hold a part of it back", path=trace.name)
    return chosen, held
