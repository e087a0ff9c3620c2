"""From replays to Markdown: ratios on the same arrivals, their intervals, the worst scenario."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.policies.bounds import ALONE, CLAIRVOYANT
from benchmarks.policies.scenarios import SLO_MIX
from router.policies.registry import POLICIES

Result = Mapping[str, Any]
Pair = tuple[float, float]
"""P99 TTFT and P99 E2E in seconds."""
Runs = dict[str, dict[int, dict[str, Pair]]]
"""By scenario, seed and name."""
Interval = tuple[float, float]

OURS = ("weighted-least-request", "lmetric-normalized", "marginal-delay", "motley")
PEERS = tuple(name for name in POLICIES if name not in OURS)
WEIGHTED = "nginx-least-conn"
RESAMPLES = 2_000
GOAL = 0.5
"""Of least request's P99s, what Motley is to reach."""


def runs_of(results: Iterable[Result]) -> Runs:
    """The two P99s of every replay."""
    runs: Runs = defaultdict(lambda: defaultdict(dict))
    for result in results:
        ttft, e2e = result["p99_s"]
        runs[result["scenario"]][result["seed"]][result["name"]] = (ttft, e2e)
    return {scenario: dict(seeds) for scenario, seeds in runs.items()}


def names_of(runs: Runs) -> list[str]:
    """Policies that were run, without variants of one."""
    found = dict.fromkeys(n for seeds in runs.values() for row in seeds.values() for n in row)
    return [name for name in found if name in POLICIES]


def log_ratios(runs: Runs, name: str, rival: str, which: int) -> list[list[float]]:
    """One list a scenario, of one figure a seed: log of the ratio on the same arrivals."""
    found = []
    for seeds in runs.values():
        rows = [row for row in seeds.values() if name in row and rival in row]
        if rows:
            found.append([math.log(row[name][which] / row[rival][which]) for row in rows])
    return found


def middle(logs: Sequence[Sequence[float]]) -> float:
    """Geometric mean, every scenario of the same weight: a ratio and its inverse cancel."""
    return math.exp(statistics.fmean(statistics.fmean(seeds) for seeds in logs))


def by_scenario(logs: Sequence[Sequence[float]]) -> list[float]:
    """Geometric mean over the seeds of each."""
    return [math.exp(statistics.fmean(seeds)) for seeds in logs]


def interval(logs: Sequence[Sequence[float]]) -> Interval:
    """95 % of the geometric mean: paired bootstrap over scenarios and, within each, seeds."""
    draw = np.random.default_rng(0)
    means = np.zeros(RESAMPLES)
    resampled = [
        np.array(seeds)[draw.integers(0, len(seeds), (RESAMPLES, len(seeds)))].mean(axis=1)
        for seeds in logs
    ]
    chosen = draw.integers(0, len(logs), (RESAMPLES, len(logs)))
    columns = np.stack(resampled)
    means = columns[chosen, np.arange(RESAMPLES)[:, None]].mean(axis=1)
    low, high = np.exp(np.quantile(means, (0.025, 0.975)))
    return float(low), float(high)


def to_the_best(runs: Runs, name: str, which: int) -> list[float]:
    """By scenario: against whichever peer has the least of this very figure over the seeds.

    Chosen after the fact, and another peer for each figure and scenario: harder than any peer.
    """
    found = []
    for seeds in runs.values():
        mine = _over_seeds(seeds, name, which)
        peers = [_over_seeds(seeds, peer, which) for peer in PEERS if peer != name]
        known = [value for value in peers if value is not None]
        if mine is not None and known:
            found.append(mine / min(known))
    return found


def _over_seeds(seeds: Mapping[int, Mapping[str, Pair]], name: str, which: int) -> float | None:
    values = [row[name][which] for row in seeds.values() if name in row]
    return math.exp(statistics.fmean(map(math.log, values))) if values else None


# -- tables ------------------------------------------------------------------------------------


def evidence_tables(results: Sequence[Result]) -> str:
    """Every policy in one table, Motley's workloads in another, the service classes in a third."""
    runs = runs_of(results)
    parts = [
        summary_table(results),
        guard_sentences(runs),
        workload_table(results),
        class_table(results),
    ]
    return "\n\n".join(part for part in parts if part)


def summary_table(results: Sequence[Result]) -> str:
    """One line a policy: both P99s relative to least request and to weighted nginx."""
    runs = runs_of(results)
    seeds = {result["seed"] for result in results}
    met = attainment(results)
    lines = [
        f"{len(runs)} scenarios, {len(seeds)} seed{'s' if len(seeds) > 1 else ''}; ratios of P99 "
        "on the same arrivals (below 1 is better): geometric mean, its 95 % interval, and after "
        "the bar the worst scenario.",
        "",
        "| policy | TTFT / least request | E2E / least request | TTFT / nginx, true weights "
        "| E2E / nginx, true weights | in SLO |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    for name in sorted(names_of(runs), key=lambda n: _product(runs, n)):
        cells = [
            told(log_ratios(runs, name, rival, which))
            for rival in ("least-request", WEIGHTED)
            for which in (0, 1)
        ]
        mark = "**" if name == "motley" else ""
        lines.append(f"| {mark}`{name}`{mark} | {' | '.join(cells)} | {met[name]:.1%} |")
    return "\n".join(lines)


def guard_sentences(runs: Runs) -> str:
    """Motley against the best peer of each single scenario, and the one it does worst in."""
    told, peers = [], sum(name in PEERS for name in names_of(runs))
    for which, figure in enumerate(("TTFT", "E2E")):
        values = to_the_best(runs, "motley", which)
        worst = max(range(len(values)), key=values.__getitem__)
        mean = math.exp(statistics.fmean(map(math.log, values)))
        beyond = sum(value > 1.05 for value in values)
        told.append(
            f"P99 {figure}: {mean:.2f} of the least of {peers} peers in each scenario, picked "
            f"after the fact; more than 5 % worse in {beyond} of {len(values)}, at worst "
            f"{values[worst]:.2f} ({list(runs)[worst]})."
        )
    return "`motley` against the best peer of every single scenario:\n" + "\n".join(
        f"- {line}" for line in told
    )


def workload_table(results: Sequence[Result]) -> str:
    """Motley by workload and by fleet."""
    lines = [
        "| `motley` on | TTFT / least request | E2E / least request | TTFT / nginx, true weights "
        "| E2E / nginx, true weights |",
        "|---|--:|--:|--:|--:|",
    ]
    for key in ("workload", "fleet", "load"):
        for value in dict.fromkeys(result[key] for result in results):
            runs = runs_of(result for result in results if result[key] == value)
            cells = [
                f"{middle(log_ratios(runs, 'motley', rival, which)):.2f}"
                for rival in ("least-request", WEIGHTED)
                for which in (0, 1)
            ]
            told = f"load {value:g}" if key == "load" else value
            lines.append(f"| {told} | {' | '.join(cells)} |")
    return "\n".join(lines)


def headroom_table(results: Sequence[Result]) -> str:
    """Motley between what it is measured by and what is possible; see ``bounds.py``."""
    names = (ALONE, CLAIRVOYANT, "motley")
    heads = " | ".join(f"{figure}, {name}" for figure in ("TTFT", "E2E") for name in names)
    lines = [f"| P99 / least request's | {heads} |", "|---|" + "--:|" * 6]
    kinds = [("all", results)]
    for key in ("workload", "fleet"):
        for value in dict.fromkeys(result[key] for result in results):
            kinds.append((value, [result for result in results if result[key] == value]))
    for told, some in kinds:
        runs = runs_of(some)
        cells = [
            f"{middle(log_ratios(runs, name, 'least-request', which)):.2f}"
            for which in (0, 1)
            for name in names
        ]
        lines.append(f"| {told} | {' | '.join(cells)} |")
    ratios = by_scenario(log_ratios(runs_of(results), CLAIRVOYANT, "least-request", 1))
    above = sum(ratio > GOAL for ratio in ratios)
    lines += [
        "",
        f"`{ALONE}`: every request by itself on the idle card that is fastest for it. "
        f"`{CLAIRVOYANT}`: `motley` told all lengths, costs and states. Even so told, its P99 E2E "
        f"is above {GOAL:.2f} of least request's in {above} of {len(ratios)} scenarios.",
    ]
    return "\n".join(lines)


def class_table(results: Sequence[Result], names: Sequence[str] = ()) -> str:
    """The multi-tenant mix: who is served within the targets of his class."""
    mixed = [result for result in results if result["workload"] == SLO_MIX]
    if not mixed:
        return ""
    classes = list(dict.fromkeys(name for result in mixed for name in result["classes"]))
    shown = names or ("least-request", WEIGHTED, "motley")
    wanted = [n for n in dict.fromkeys(r["name"] for r in mixed) if _begins(n, shown)]
    lines = [
        f"| `{SLO_MIX}` | {' | '.join(f'{name} in SLO' for name in classes[:-1])} "
        f"| turned away | {classes[0]} P99 TTFT | {classes[0]} P99 E2E | bulk P99 TTFT |",
        "|---|" + "--:|" * (len(classes) + 3),
    ]
    for name in wanted:
        mine = [result["classes"] for result in mixed if result["name"] == name]
        cells = [
            f"{statistics.fmean(one[slo]['attainment'] for one in mine):.1%}"
            for slo in classes[:-1]
        ]
        away = statistics.fmean(one[slo]["turned_away"] for one in mine for slo in one)
        p99s = [_mean(one[classes[0]]["p99_s"][which] for one in mine) for which in (0, 1)]
        bulk = _mean(one[classes[-1]]["p99_s"][0] for one in mine)
        cells += [f"{away:.1%}", f"{p99s[0]:.2f} s", f"{p99s[1]:.1f} s", f"{bulk:.1f} s"]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def ablation_table(results: Sequence[Result]) -> str:
    """One line a variant: both P99s relative to the whole policy."""
    runs = runs_of(results)
    names = dict.fromkeys(result["name"] for result in results)
    lines = [
        f"{len(runs)} scenarios; ratios to `motley` (above 1: the part earns its place): geometric "
        "mean, its 95 % interval, and after the bar the extremes over scenarios.",
        "",
        "| variant | P99 TTFT | P99 E2E |",
        "|---|--:|--:|",
    ]
    for name in names:
        cells = []
        for which in (0, 1):
            logs = log_ratios(runs, name, "motley", which)
            values = by_scenario(logs)
            low, high = interval(logs)
            cells.append(
                f"{middle(logs):.2f} [{low:.2f}, {high:.2f}] "
                f"\\| {min(values):.2f} to {max(values):.2f}"
            )
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def workload_ablation(results: Sequence[Result]) -> str:
    """One line a workload and variant: what a part is worth where."""
    lines = ["| workload | variant | P99 TTFT | P99 E2E |", "|---|---|--:|--:|"]
    for workload in dict.fromkeys(result["workload"] for result in results):
        runs = runs_of(result for result in results if result["workload"] == workload)
        for name in dict.fromkeys(result["name"] for result in results):
            if name != "motley":
                cells = (told(log_ratios(runs, name, "motley", which)) for which in (0, 1))
                lines.append(f"| {workload} | {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def attainment(results: Iterable[Result]) -> dict[str, float]:
    """Mean share of requests within their targets, by name."""
    shares: dict[str, list[float]] = defaultdict(list)
    for result in results:
        shares[result["name"]].append(result["attainment"])
    return {name: statistics.fmean(values) for name, values in shares.items()}


def _begins(name: str, shown: Sequence[str]) -> bool:
    return any(name == one or name.startswith(f"{one}, ") for one in shown)


def _product(runs: Runs, name: str) -> float:
    return math.prod(middle(log_ratios(runs, name, "least-request", k)) for k in (0, 1))


def told(logs: Sequence[Sequence[float]]) -> str:
    low, high = interval(logs)
    worst = max(by_scenario(logs))
    return f"{middle(logs):.2f} [{low:.2f}, {high:.2f}] \\| {worst:.2f}"


def _mean(values: Iterable[float]) -> float:
    return math.exp(statistics.fmean(math.log(max(value, 1e-3)) for value in values))
