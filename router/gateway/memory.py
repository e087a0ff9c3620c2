"""Keeps what was learned over a restart: read when the gateway starts, written every minute.

What is in the file, and what is not, says ``telemetry/learned.py``. A file that is missing, wrong
or cannot be written costs nothing but a cold start, one line in the log and a count in the
metrics. One that makes no sense is put aside, never written over.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Callable, Iterator
from typing import Any, Literal

from router.config.schema import LearnedSection
from router.domain.errors import LearnedError
from router.gateway.lull import Rest
from router.gateway.pupils import Pupils, Recalled
from router.perf.length_kept import LengthCell
from telemetry import metric_table as table
from telemetry.learned import Learned, described, encode
from telemetry.learned_file import LearnedFile, read_learned
from telemetry.metrics import GatewayMetrics, Sample
from telemetry.speeds import Before

log = logging.getLogger("motley.learned")

LOOK_S = 1.0
SLICE = 250
Result = Literal["ok", "failed", "left"]
"""Written; could not be; left to another process, which has the file."""


class Memory:
    """What one gateway remembers.

    Args:
        section: the setting as it is now; a reload may change it.
        pupils: who learned.
        metrics: count what is written.
        now: seconds, monotonic.
        unix_s: wall clock, seconds.
    """

    def __init__(
        self,
        section: Callable[[], LearnedSection | None],
        pupils: Pupils,
        metrics: GatewayMetrics,
        now: Callable[[], float],
        unix_s: Callable[[], float],
    ) -> None:
        self._section, self._pupils, self._metrics = section, pupils, metrics
        self._now, self._unix_s = now, unix_s
        self._file: LearnedFile | None = None
        self._name = ""
        self._unused = Before()
        self._writing = threading.Lock()
        self._tried_s = self._written_s = now()
        self._complaint = ""
        self._result: Result = "ok"
        self._kept_out = False
        self.recalled: Recalled | None = None
        metrics.ask(table.LEARNED_RESTORED, self._restored)
        metrics.ask(table.LEARNED_RESTORED_AGE, self._restored_age)
        metrics.ask(table.LEARNED_WRITTEN_AGE, self._written_age)

    def follow(self) -> None:
        """Use the file that the configuration names now; what was learned goes with it."""
        section = self._section()
        name = section.file if section is not None else ""
        if name == self._name:
            return
        self.close()
        self._name, self._file = name, LearnedFile(name) if name else None
        self._complaint, self._kept_out = "", False
        self._tried_s = self._written_s = self._now()
        if self._file is not None:
            self._claim(self._file)
            self._recall(self._file)

    async def keep_writing(self, rest: Rest) -> None:
        """Write every so often, and when the file is another one."""
        while True:
            await rest(LOOK_S)
            self.follow()
            section = self._section()
            if section is not None and self._now() - self._tried_s >= section.every_s:
                await self._save_aside()

    def close(self) -> None:
        """Write a last time, and let another process have the file."""
        if self._file is not None:
            self._report(self._save(self._file, self._learned(self._pupils.lengths.cells())))
            self._file.release()

    async def so_far(self) -> Learned:
        """What is known now, for this file or for another."""
        lengths: list[LengthCell] = []
        for number, cell in enumerate(self._pupils.lengths.each_cell(), start=1):
            lengths.append(cell)
            if number % SLICE == 0:
                await asyncio.sleep(0)  # requests first: ten thousand cells take 20 ms
        return self._learned(lengths)

    def described(self) -> dict[str, Any] | None:
        """What came from before, for people to read."""
        known = self.recalled
        if known is None:
            return None
        return {
            "file": known.file,
            "origin": known.origin,
            "age_s": max(0.0, self._unix_s() - known.written_unix_s),
            "restored": known.counts,
        }

    # -- reading -----------------------------------------------------------------------------

    def _claim(self, file: LearnedFile) -> bool:
        """Whether the file is ours to write."""
        try:
            ours = file.claim()
        except OSError as error:
            self._tell("failed", f"cannot be written: {error.strerror}")
            return False
        if not ours:
            self._tell("left", "another process writes it; this one only reads it")
        return ours

    def _recall(self, file: LearnedFile) -> None:
        if not os.path.exists(file.path):  # unlike Path.exists, never an error
            log.info("%s: nothing was learned before; the start is cold", self._name)
            return
        try:
            learned, flaws = read_learned(file.path)
        except LearnedError as error:
            self._refuse(file, f"{error}; the start is cold")
            return
        if flaws:
            self._refuse(file, f"{file.path}: {'; '.join(flaws)}; the rest is used")
        counts = self._restore(learned)
        if self.recalled is None or any(counts.values()):
            self.recalled = Recalled(self._name, learned.origin, learned.written_unix_s, counts)
        had = described(learned)
        log.info(
            "%s: known again from %.0f s ago: %s",
            self._name,
            learned.age_s(self._unix_s()),
            ", ".join(f"{counts[what]} of {had[what]} {what}" for what in had),
        )

    def _restore(self, learned: Learned) -> dict[str, int]:
        pupils, now = self._pupils, self._now()
        if pupils.feedback is None and learned.origin == "gateway":
            self._unused = Before(learned.speeds, learned.age_s(self._unix_s()), now)
        return pupils.restore(learned, self._unix_s(), now)

    def _refuse(self, file: LearnedFile, why: str) -> None:
        """Say what is wrong with it, and see that nobody writes over it."""
        if not file.ours:
            log.error("%s", why)
            return
        try:
            log.error("%s; it is kept as %s", why, file.put_aside())
        except OSError as error:
            self._kept_out = True
            log.error(
                "%s; it cannot be put aside (%s), so nothing is written until it is gone",
                why,
                error.strerror,
            )

    # -- writing -----------------------------------------------------------------------------

    def _learned(self, lengths: list[LengthCell]) -> Learned:
        now, feedback = self._now(), self._pupils.feedback
        speeds = self._unused.left({}, now) if feedback is None else feedback.speeds(now)
        return self._pupils.learned(lengths, speeds, self._unix_s())

    async def _save_aside(self) -> None:
        """Write in a thread: a disk may take its time, requests may not."""
        file = self._file
        self._tried_s = self._now()
        if file is None:
            return
        was_ours = file.ours
        if self._claim(file):
            if not was_ours:  # whoever wrote it until now has stopped, and may have known more
                self._recall(file)
            self._report(await asyncio.to_thread(self._save, file, await self.so_far()))

    def _save(self, file: LearnedFile, learned: Learned) -> str | None:
        """Write, in any thread: what went wrong, "" if nothing did, ``None`` if nothing was to be
        written."""
        if not file.ours or (self._kept_out and os.path.exists(file.path)):
            return None
        with self._writing:
            try:
                file.write(encode(learned))
            except OSError as error:
                return f"cannot be written: {error.strerror}"
        return ""

    def _report(self, complaint: str | None) -> None:
        """Tell how a writing went, on the loop: metrics are of one thread."""
        if complaint:
            self._tell("failed", complaint)
        elif complaint is not None:
            self._written_s = self._now()
            self._tell("ok", "")

    def _tell(self, result: Result, complaint: str) -> None:
        """Count it; say it once, and that it is over."""
        self._metrics.count(table.LEARNED_WRITES, (result,))
        self._result = result
        if complaint == self._complaint:
            return
        if complaint:
            level = logging.ERROR if result == "failed" else logging.INFO
            log.log(level, "%s: %s; what is learned is kept in memory", self._name, complaint)
        else:
            log.info("%s: can be written again", self._name)
        self._complaint = complaint

    # -- for /metrics ------------------------------------------------------------------------

    def _restored(self) -> Iterator[Sample]:
        if self.recalled is not None:
            yield from (((what,), float(n)) for what, n in self.recalled.counts.items())

    def _restored_age(self) -> Iterator[Sample]:
        if self.recalled is not None:
            yield (), max(0.0, self._unix_s() - self.recalled.written_unix_s)

    def _written_age(self) -> Iterator[Sample]:
        if self._file is not None and self._result != "left":
            yield (), self._now() - self._written_s
