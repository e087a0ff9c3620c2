"""Prometheus' text format, written straight from plain numbers.

``prometheus_client`` builds an object for every sample and takes 0.3 s for 500 backends, during
which a gateway answers nobody. This writes the same lines twenty times as fast, in pieces between
which the event loop gets its turn.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate

from telemetry.histogram import Histogram
from telemetry.metric_table import Metric

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
PIECE = 50
"""Histograms to a piece: about half a millisecond."""

_ESCAPES = str.maketrans({"\\": "\\\\", "\n": "\\n", '"': '\\"'})


def head(metric: Metric) -> str:
    """Help and type."""
    told = metric.help.replace("\\", "\\\\").replace("\n", "\\n")
    return f"# HELP {metric.name} {told}\n# TYPE {metric.name} {metric.kind}\n"


def sample_lines(metric: Metric, samples: Iterable[tuple[Sequence[str], float]]) -> str:
    """One line for each (label values, value) of a counter or gauge."""
    name, keys = metric.name, _in_order(metric)
    return "".join(
        [f"{name}{_block(keys, values)} {_number(value)}\n" for values, value in samples]
    )


def histogram_pieces(
    metric: Metric, histograms: Sequence[tuple[Sequence[str], Histogram]]
) -> Iterator[str]:
    """Buckets, count and sum of each histogram, some histograms at a time."""
    name, keys = metric.name, _in_order(metric)
    ends = [f'le="{float(bound)}"}} ' for bound in metric.buckets] + ['le="+Inf"} ']
    for start in range(0, len(histograms), PIECE):
        lines: list[str] = []
        for values, histogram in histograms[start : start + PIECE]:
            block = _block(keys, values)
            open_block = f"{block[:-1]}," if block else "{"
            counts = list(accumulate(histogram.counts))
            opening = f"{name}_bucket{open_block}"
            lines += [f"{opening}{e}{n}\n" for e, n in zip(ends, counts, strict=True)]
            lines.append(f"{name}_count{block} {counts[-1]}\n")
            lines.append(f"{name}_sum{block} {_number(histogram.total)}\n")
        yield "".join(lines)


def _in_order(metric: Metric) -> list[tuple[int, str]]:
    """Labels by name, each with its place among the values: what diffs and people expect."""
    return sorted(enumerate(metric.labels), key=lambda label: label[1])


def _block(keys: Sequence[tuple[int, str]], values: Sequence[str]) -> str:
    if not keys:
        return ""
    pairs = [f'{key}="{values[place].translate(_ESCAPES)}"' for place, key in keys]
    return "{" + ",".join(pairs) + "}"


def _number(value: float) -> str:
    if value != value:  # noqa: PLR0124 - NaN
        return "NaN"
    if value in (float("inf"), float("-inf")):
        return "+Inf" if value > 0 else "-Inf"
    return repr(float(value))
