"""Service classes and their latency targets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from router.domain.errors import BadInputError


@dataclass(frozen=True, slots=True)
class Slo:
    """Latency targets of one class, in seconds; ``None`` means no target.

    Attributes:
        name: of the class.
        ttft_s, tpot_s, e2e_s: the targets.
        models: other targets for some models; the ones above hold for all the rest.
    """

    name: str
    ttft_s: float | None = None
    tpot_s: float | None = None
    e2e_s: float | None = None
    models: Mapping[str, Slo] = field(default_factory=dict, hash=False)

    @property
    def urgent(self) -> bool:
        """Whether there is a target for when the answer begins or ends."""
        return self.ttft_s is not None or self.e2e_s is not None

    def of_model(self, model: str) -> Slo:
        """The targets of this class for one model."""
        return self.models.get(model, self) if self.models else self

    def met(self, *, ttft_s: float, tpot_s: float, e2e_s: float) -> bool:
        """Whether one finished request kept all its targets."""
        return (
            (self.ttft_s is None or ttft_s <= self.ttft_s)
            and (self.tpot_s is None or tpot_s <= self.tpot_s)
            and (self.e2e_s is None or e2e_s <= self.e2e_s)
        )

    def asking(
        self,
        *,
        ttft_s: float | None = None,
        tpot_s: float | None = None,
        e2e_s: float | None = None,
    ) -> Slo:
        """These targets with those replaced that one request asks for itself.

        Raises:
            BadInputError: the outcome contradicts itself.
        """
        asked = Slo(
            self.name,
            self.ttft_s if ttft_s is None else ttft_s,
            self.tpot_s if tpot_s is None else tpot_s,
            self.e2e_s if e2e_s is None else e2e_s,
        )
        asked.check()
        return asked

    def check(self) -> None:
        """Make sure that the targets can be met together.

        Raises:
            BadInputError: a target that is no positive number of seconds, or an answer that
                would have to be complete before it begins.
        """
        for name in ("ttft_s", "tpot_s", "e2e_s"):
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                raise BadInputError(
                    f"the {name} of class {self.name!r} must be a positive number of seconds, "
                    f"not {value!r}"
                )
        if self.ttft_s is not None and self.e2e_s is not None and self.e2e_s < self.ttft_s:
            raise BadInputError(
                f"the targets of class {self.name!r} contradict each other: the answer may begin "
                f"after {self.ttft_s:g} s (TTFT) and must be complete after {self.e2e_s:g} s "
                "(E2E); raise the E2E target or lower the TTFT target"
            )


DEFAULT_CLASS = "interactive"
"""Service class of requests that name none."""

DEFAULT_SLOS: dict[str, Slo] = {
    "interactive": Slo("interactive", ttft_s=2.0, tpot_s=0.1),
    "throughput": Slo("throughput", ttft_s=10.0, tpot_s=0.25),
    "bulk": Slo("bulk"),
}
"""Targets used when the YAML names none. TTFT 2 s and TPOT 100 ms are what readers bear
(about 10 tokens/s, twice the reading speed of 4.8 tokens/s used by Andes)."""


def slo_from_json(fields: Mapping[str, object]) -> Slo:
    """A ``Slo`` from what ``dataclasses.asdict`` made of it."""
    models = fields.get("models") or {}
    assert isinstance(models, Mapping)
    known = {name: slo_from_json(inner) for name, inner in models.items()}
    return Slo(**{**fields, "models": known})  # type: ignore[arg-type]
