"""How far an engine's cache holds what the router believes it to hold."""

from __future__ import annotations

GAIN = 0.1


class PrefixTrust:
    """Cached tokens that one engine found, over those that the index promised.

    Args:
        keeps: whether its settings have it keep finished prompts at all.

    Attributes:
        share: of the promised tokens, those that are probably there; from 0 to 1.
    """

    __slots__ = ("_judged", "share")

    def __init__(self, *, keeps: bool) -> None:
        self.share = 1.0 if keeps else 0.0
        self._judged = 1

    def judge(self, promised_tokens: int, found_tokens: int) -> None:
        """The engine told how much of the promised prefix it really had.

        The first words count most: an engine that keeps nothing shows it in a few answers.
        """
        self._judged += 1
        gain = max(GAIN, 1.0 / self._judged)
        self.share += gain * (min(found_tokens / promised_tokens, 1.0) - self.share)
