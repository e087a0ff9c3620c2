"""Those who meet at one backend, and how much a delay of theirs counts."""

from __future__ import annotations


class Crowd:
    """Who was sent to a backend since it was last seen idle.

    Attributes:
        number: counts how often it was seen idle; who is met there is met in one of these.
        weight: how much what is inflicted on them counts, on average; 1 where nobody is.
    """

    __slots__ = ("_met", "_met_weight", "number", "weight")

    def __init__(self) -> None:
        self.number = 0
        self.weight = 1.0
        self._met = 0
        self._met_weight = 0.0

    def enter(self, weight: float) -> int:
        """A request whose delay counts so much was sent here; returns the crowd's number."""
        self._met += 1
        self._met_weight += weight
        self.weight = self._met_weight / self._met
        return self.number

    def leave(self, weight: float, number: int) -> None:
        """One that was sent here is over; nothing if its crowd was gone before it."""
        if number != self.number or not self._met:
            return
        self._met -= 1
        if self._met:
            self._met_weight -= weight
            self.weight = self._met_weight / self._met
        else:
            self._met_weight, self.weight = 0.0, 1.0

    def disperse(self) -> None:
        """The backend is idle: whoever was met there is gone, perhaps without a word."""
        if self._met:
            self._met, self._met_weight, self.weight = 0, 0.0, 1.0
            self.number += 1
