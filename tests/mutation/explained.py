"""Mutants that survive because they change nothing that anybody promises."""

from __future__ import annotations

ROOM = "router/queue/class_room.py"
EXPLAINED: dict[tuple[str, str, str], str] = {
    (ROOM, "self._number += 1", "1 -> 2"): "numbers break ties by their order, whatever they are",
    (ROOM, "best_rank = (3, 0.0)", "3 -> 4"): "ranks are 0, 1 and 2",
    (ROOM, "best_rank = (3, 0.0)", "0.0 -> 1.0"): "ranks are 0, 1 and 2",
    (ROOM, "self.backlog_s.clear()", "call left out"): "the room drops a lane that is empty",
    (ROOM, "self._finish.clear()", "call left out"): "the room drops a lane that is empty",
}
"""By file, line and change: why no test can or should notice."""
