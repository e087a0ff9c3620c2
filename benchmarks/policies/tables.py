"""From replays to Markdown: ratios to the rivals, means over scenarios, the worst scenario."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from scipy.special import stdtrit

from router.policies.registry import POLICIES

Result = Mapping[str, Any]
Figures = dict[str, dict[str, tuple[float, float]]]
"""P99 TTFT and P99 E2E in seconds, mean over seeds, by scenario and name."""

Interval = tuple[float, float]

OURS = ("weighted-least-request", "lmetric-normalized", "marginal-delay", "motley")
PEERS = tuple(name for name in POLICIES if name not in OURS)


def figures(results: Iterable[Result]) -> Figures:
    """Mean over seeds of both P99s."""
    grouped: dict[tuple[str, str], list[tuple[float, float]]] = defaultdict(list)
    for result in results:
        pair = (result["ttft_s"]["p99"], result["e2e_s"]["p99"])
        grouped[result["scenario"], result["name"]].append(pair)
    table: Figures = defaultdict(dict)
    for (scenario, name), pairs in grouped.items():
        ttft = statistics.fmean(pair[0] for pair in pairs)
        table[scenario][name] = (ttft, statistics.fmean(pair[1] for pair in pairs))
    return dict(table)


def best_peer(row: Mapping[str, tuple[float, float]]) -> str:
    """The peer that is hardest to beat in a scenario: least product of its two P99s."""
    peers = [name for name in row if name in PEERS]
    return min(peers, key=lambda name: row[name][0] * row[name][1])


def summary_table(results: Iterable[Result]) -> str:
    """One line a policy: both P99s relative to least request and to the best single peer."""
    table = figures(results)
    names = list(dict.fromkeys(name for row in table.values() for name in row))
    strongest = _strongest_overall(table)
    lines = [
        f"{len(table)} scenarios; ratios of P99 (below 1 is better), geometric mean, and in "
        f"brackets the worst scenario. The strongest peer over all is `{strongest}`; the best "
        "peer of each scenario (by the product of both) is chosen after the fact, and so, for the "
        "last two columns, is the peer with the least of each figure.",
        "",
        "| policy | TTFT / least-request | E2E / least-request | TTFT / strongest peer "
        "| E2E / strongest peer | TTFT / best peer each | E2E / best peer each "
        "| TTFT / least of all peers | E2E / least of all peers |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for name in sorted(names, key=lambda n: _product(table, n, "least-request")):
        cells = [
            _ratio(table, name, rival, which)
            for rival in ("least-request", strongest, None)
            for which in (0, 1)
        ]
        cells += [_told(to_the_least(table, name, which)) for which in (0, 1)]
        mark = "**" if name == "motley" else ""
        lines.append(f"| {mark}`{name}`{mark} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def paired_intervals(results: Iterable[Result]) -> dict[str, tuple[Interval, Interval]]:
    """Ratio of ``motley`` to every other policy, per scenario and seed, on the same arrivals.

    Geometric mean with its 95 % interval over all pairs (Student's t on the logarithms), of P99
    TTFT and of P99 E2E.
    """
    pairs: dict[tuple[str, int], dict[str, tuple[float, float]]] = defaultdict(dict)
    for result in results:
        figure = (result["ttft_s"]["p99"], result["e2e_s"]["p99"])
        pairs[result["scenario"], result["seed"]][result["name"]] = figure
    names = {name for row in pairs.values() for name in row} - {"motley"}
    rows = [row for row in pairs.values() if "motley" in row]
    return {name: (_interval(rows, name, 0), _interval(rows, name, 1)) for name in sorted(names)}


def _interval(rows: list[dict[str, tuple[float, float]]], name: str, which: int) -> Interval:
    logs = [math.log(row["motley"][which] / row[name][which]) for row in rows if name in row]
    centre = statistics.fmean(logs)
    if len(logs) < 2:
        return math.exp(centre), math.exp(centre)
    reach = float(stdtrit(len(logs) - 1, 0.975)) * statistics.stdev(logs) / math.sqrt(len(logs))
    return math.exp(centre - reach), math.exp(centre + reach)


def ablation_table(results: Iterable[Result]) -> str:
    """One line a variant: both P99s relative to the whole policy."""
    table = figures(results)
    names = list(dict.fromkeys(name for row in table.values() for name in row))
    lines = [
        f"{len(table)} scenarios; ratios to `motley` (above 1: the part earns its place), "
        "geometric mean and the extremes over scenarios.",
        "",
        "| variant | P99 TTFT | P99 E2E |",
        "|---|--:|--:|",
    ]
    for name in names:
        lines.append(
            f"| {name} | {_range(table, name, 'motley', 0)} | {_range(table, name, 'motley', 1)} |"
        )
    return "\n".join(lines)


def ratios(table: Figures, name: str, rival: str | None, which: int) -> list[float]:
    """By scenario; against the best peer of each scenario if no rival is named."""
    return [
        row[name][which] / row[rival or best_peer(row)][which]
        for row in table.values()
        if name in row
    ]


def _strongest_overall(table: Figures) -> str:
    names = {name for row in table.values() for name in row if name in PEERS}
    return min(names, key=lambda name: _product(table, name, "least-request"))


def _product(table: Figures, name: str, rival: str) -> float:
    return _mean(ratios(table, name, rival, 0)) * _mean(ratios(table, name, rival, 1))


def _ratio(table: Figures, name: str, rival: str | None, which: int) -> str:
    return _told(ratios(table, name, rival, which))


def to_the_least(table: Figures, name: str, which: int) -> list[float]:
    """By scenario, to whichever peer has the least of that very figure."""
    return [
        row[name][which] / min(row[peer][which] for peer in row if peer in PEERS and peer != name)
        for row in table.values()
        if name in row
    ]


def _told(values: list[float]) -> str:
    return f"{_mean(values):.2f} ({max(values):.2f})"


def _range(table: Figures, name: str, rival: str, which: int) -> str:
    values = ratios(table, name, rival, which)
    return f"{_mean(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def _mean(values: list[float]) -> float:
    """Geometric: a ratio and its inverse cancel."""
    return math.exp(statistics.fmean(math.log(value) for value in values))
