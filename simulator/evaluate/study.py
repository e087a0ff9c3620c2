"""One evaluation: every variant asked everything, graded, and compared with its baseline."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

from router.config.load import MotleyConfig
from router.domain.errors import ConfigError, UnknownNameError
from simulator.evaluate.ask import Variant, repeated
from simulator.evaluate.figures import Quality, quality_of
from simulator.evaluate.grade import Grade
from simulator.evaluate.items import Asked

UNQUANTIZED = ("", "fp16", "bf16", "native")
NATIVE = "native"
"""Name of a backend whose weight format is the model's own."""


@dataclass(frozen=True, slots=True)
class Result:
    """One variant: what it said and what that is worth.

    Attributes:
        variant: who was asked.
        answers, grades: one an item.
        quality: judged against the baseline.
    """

    variant: Variant
    answers: Sequence[str]
    grades: Sequence[Grade]
    quality: Quality


def variants_of(config: MotleyConfig) -> dict[str, list[Variant]]:
    """One backend of each weight format, by the model that the fleet file names.

    Raises:
        ConfigError: a backend without a URL.
    """
    found: dict[str, dict[str, Variant]] = defaultdict(dict)
    for spec in config.fleet.backends:
        if not spec.url:
            raise ConfigError(f"{spec.name} has no url: it cannot be asked anything")
        name = spec.quantization or NATIVE
        asked = Variant(name, spec.url, spec.served_model or spec.model)
        found[spec.model].setdefault(name, asked)
    return {model: list(formats.values()) for model, formats in found.items()}


def parse_variant(text: str) -> Variant:
    """Read ``NAME=URL`` or ``NAME=URL#MODEL``.

    Raises:
        ConfigError: it is neither.
    """
    name, equals, rest = text.partition("=")
    url, _, model = rest.partition("#")
    if not (name and equals and url.startswith(("http://", "https://"))):
        raise ConfigError(f"--variant {text!r} should look like fp8=http://host:8000#model")
    return Variant(name, url, model)


def baseline_of(variants: Sequence[Variant], wanted: str) -> Variant:
    """The variant that others are compared with: the one wanted, the unquantized one, the first.

    Raises:
        UnknownNameError: none is called so.
        ConfigError: two variants share a name.
    """
    names = [variant.name for variant in variants]
    if twice := repeated(names):
        raise ConfigError(f"two variants are called {twice[0]!r}: give each a name of its own")
    if wanted:
        if wanted not in names:
            raise UnknownNameError("variant", wanted, names)
        return variants[names.index(wanted)]
    return next((one for one in variants if one.name in UNQUANTIZED), variants[0])


def judged(
    items: Sequence[Asked],
    answered: Mapping[str, tuple[Variant, Sequence[str], Sequence[Grade]]],
    baseline: str,
) -> list[Result]:
    """Compare every variant with the baseline, the baseline first."""
    best = by_category(items, answered[baseline][2])
    order = sorted(answered, key=lambda name: name != baseline)
    return [
        Result(
            *answered[name],
            quality_of(by_category(items, answered[name][2]), None if name == baseline else best),
        )
        for name in order
    ]


def by_category(items: Sequence[Asked], grades: Sequence[Grade]) -> dict[str, list[float]]:
    """Scores by category, in the order of the items."""
    found: dict[str, list[float]] = defaultdict(list)
    for asked, grade in zip(items, grades, strict=True):
        found[asked.category].append(grade.score)
    return dict(found)


def exact_share(result: Result) -> float | None:
    """Share of the short answers that match exactly; ``None`` if there were none."""
    exact = [grade.parts["exact"] for grade in result.grades if "exact" in grade.parts]
    return fmean(exact) if exact else None


def planner_quality(results: Sequence[Result], *, model: str = "") -> dict[str, float]:
    """What the planner's quality floor reads: the ratio to the baseline, by weight format.

    Args:
        results: of one model.
        model: its name, if the fleet serves several; it then stands before the format.
    """
    return {
        f"{model}/{result.variant.name}" if model else result.variant.name: round(
            result.quality.ratio.value, 4
        )
        for result in results
        if result.variant.name != NATIVE
    }


def document(items: Sequence[Asked], results: Sequence[Result]) -> dict[str, Any]:
    """Everything as JSON values."""
    return {
        "items": len(items),
        "variants": [
            {
                "name": result.variant.name,
                "url": result.variant.url,
                "model": result.variant.model,
                **asdict(result.quality),
                "exact_match": exact_share(result),
            }
            for result in results
        ],
    }


def lines(items: Sequence[Asked], results: Sequence[Result]) -> Iterator[dict[str, Any]]:
    """Every answer and its grade, to look at."""
    for result in results:
        for asked, answer, grade in zip(items, result.answers, result.grades, strict=True):
            yield {
                "variant": result.variant.name,
                "id": asked.name,
                "category": asked.category,
                "answer": answer,
                **asdict(grade),
            }
