"""What a source does not tell of a backend, asked of its engine, once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from router.domain.errors import ConfigError
from router.gateway.admin.identify import identify
from telemetry.http_get import HttpGetter

MOST_KEPT = 10_000


class Asked:
    """Asks each address once; who does not answer is asked again the next time.

    Args:
        gpus: names in the catalogue.
        fetcher_of: how to ask the backend of this name.
    """

    def __init__(
        self,
        gpus: Sequence[str],
        fetcher_of: Callable[[str], HttpGetter] = lambda _: HttpGetter(),
    ) -> None:
        self._gpus, self._fetcher_of = list(gpus), fetcher_of
        self._known: dict[tuple[str, str], dict[str, Any]] = {}

    async def fields(self, name: str, url: str) -> dict[str, Any]:
        """Fields of a ``backends`` entry, as far as the engine tells them.

        Raises:
            ConfigError: it does not answer, or lists no model.
        """
        known = self._known.get((name, url))
        if known is None:
            fetcher = self._fetcher_of(name)
            try:
                known = (await identify(url, fetcher, self._gpus)).fields()
            finally:
                fetcher.close()
            if len(self._known) >= MOST_KEPT:
                self._known.clear()
            self._known[name, url] = known
        return dict(known)

    async def or_why_not(self, name: str, url: str) -> dict[str, Any] | str:
        """The same; or the reason why there are none."""
        try:
            return await self.fields(name, url)
        except ConfigError as error:
            return f"{name}: {error}"
