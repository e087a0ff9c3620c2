"""Keep the roster at what a source says, whatever befalls the source."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from router.gateway.discovery.roster import Roster
from router.gateway.discovery.seam import DiscoveryError, Source

log = logging.getLogger("motley.discovery")


async def follow(
    source: Source, roster: Roster, failed: Callable[[str], None], changed: Callable[[], None]
) -> None:
    """Apply every fleet the source tells, for ever.

    While the source cannot be read its last fleet stands: a control plane that is down is no
    reason to stop serving. The same complaint is logged once.

    Args:
        source: tells fleets.
        roster: applies them.
        failed: called with the source's name at each error, for the metrics.
        changed: called after each fleet.
    """
    complaint = ""
    while True:
        try:
            async for seen in source.fleets():
                roster.put(source.name, seen)
                changed()
                if complaint:
                    log.info("fleet from %s: can be read again", source.name)
                    complaint = ""
        except DiscoveryError as error:
            failed(source.name)
            if f"{error}" != complaint:
                complaint = f"{error}"
                log.warning("fleet from %s: %s; its last fleet stands", source.name, error)
        await asyncio.sleep(source.retry_s)
