"""The table in the terminal: every policy a line, the best of each column marked."""

from __future__ import annotations

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from simulator.compare import FEWEST, RANKING, Difference
from simulator.report.classes import classes_table, has_classes
from simulator.report.words import seconds
from simulator.summary import Summary

_NARROW = (
    ("TTFT", "ttft_s", "p50"),
    ("TTFT", "ttft_s", "p99"),
    ("TPOT", "tpot_s", "p99"),
    ("E2E", "e2e_s", "mean"),
    ("E2E", "e2e_s", "p99"),
)
_WIDE = (
    *(("TTFT", "ttft_s", figure) for figure in ("p50", "p90", "p99")),
    *(("TPOT", "tpot_s", figure) for figure in ("p50", "p99")),
    *(("E2E", "e2e_s", figure) for figure in ("mean", "p50", "p90", "p99")),
)
WIDE = 130
"""Columns of a terminal that has room for everything."""
TOO_FEW = (
    f"? nobody can tell whether it is noise: fewer than {FEWEST} requests. Replay more of them, or "
    "with --seeds 5."
)

_VERDICT_STYLE = {"noise": "dim", "worse": "red", "better": "green"}


def results_table(
    summaries: Sequence[Summary], differences: Sequence[Difference], *, wide: bool = False
) -> RenderableType:
    """Build the table, and below it what must be known to read it.

    Args:
        summaries: one per run; runs of one policy with several seeds are averaged.
        differences: from ``compare``; may be empty.
        wide: more figures and the intervals.
    """
    averaged = average_seeds(summaries)
    figures = _WIDE if wide else _NARROW
    lost = any(_lost(summary) for summary in averaged)
    table = Table(header_style="bold", box=SIMPLE_HEAD, padding=(0, 0, 0, 1), pad_edge=False)
    table.add_column("policy", no_wrap=True, max_width=40 if wide else 22)
    names = [f"{name}\n{figure}" for name, _, figure in figures]
    names += ["SLO\nmet", *(["good\n/s"] if wide else []), *(["lost"] if lost else [])]
    for name in (*names, *(["E2E p99\nto best"] if differences else [])):
        table.add_column(name, justify="right", no_wrap=True, min_width=5)
    best = {column: _least(averaged, *column[1:]) for column in figures}
    for summary in averaged:
        cells = [_figure(summary, column, best[column]) for column in figures]
        cells.append(Text(f"{100 * summary['slo_attainment']:.1f}%"))
        cells += [Text(f"{summary['goodput_per_s']:.2f}")] if wide else []
        cells += [Text(f"{_lost(summary):.0f}")] if lost else []
        cells += [_to_best(summary["policy"], differences, wide=wide)] if differences else []
        table.add_row(Text(str(summary["policy"])), *cells)
    parts: list[RenderableType] = [Text(_title(summaries), style="bold"), table]
    if has_classes(averaged):
        parts.append(classes_table(averaged, wide=wide))
    notes = (Text(line, style="dim") for line in _footnotes(summaries, differences))
    return Group(*parts, *notes)


def average_seeds(summaries: Sequence[Summary]) -> list[Summary]:
    """One summary per policy: figures averaged over its seeds."""
    by_policy: dict[str, list[Summary]] = {}
    for summary in summaries:
        by_policy.setdefault(str(summary["policy"]), []).append(summary)
    return [_average(group) for group in by_policy.values()]


def _average(group: Sequence[Summary]) -> Summary:
    merged = dict(group[0])
    for key, value in group[0].items():
        values = [summary[key] for summary in group]
        if key == "classes":
            merged[key] = {
                name: _average([v[name] for v in values if name in v])
                for name in dict.fromkeys(name for v in values for name in v)
            }
        elif isinstance(value, dict) and key.endswith("_s"):
            merged[key] = {name: _mean([v[name] for v in values]) for name in value}
        elif isinstance(value, int | float) and not isinstance(value, bool) and key != "seed":
            merged[key] = _mean(values)
        elif value is None:
            merged[key] = _mean([v for v in values if isinstance(v, int | float)])
    return merged


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _least(summaries: Sequence[Summary], key: str, figure: str) -> float:
    return min((s[key][figure] for s in summaries if s[key][figure] is not None), default=0.0)


def _figure(summary: Summary, column: tuple[str, str, str], best: float) -> Text:
    value = summary[column[1]][column[2]]
    return Text(seconds(value), style="green" if value is not None and value <= best else "")


def _lost(summary: Summary) -> float:
    return float(summary["rejected"] + summary["failed"] + summary["cancelled"])


def _to_best(policy: str, differences: Sequence[Difference], *, wide: bool) -> Text:
    for difference in differences:
        if difference.policy == policy and difference.metric is RANKING:
            text = f"{difference.mean:+.2f}"
            if wide and difference.is_known:
                text += f" [{difference.low:+.2f}, {difference.high:+.2f}]"
            if difference.is_noise:
                text += " noise" if difference.is_known else " ?"
            return Text(text, style=_VERDICT_STYLE[difference.verdict])
    return Text("best", style="green")


def _title(summaries: Sequence[Summary]) -> str:
    first = summaries[0]
    seeds = len({summary["seed"] for summary in summaries})
    times = f", {seeds} seeds" if seeds > 1 else f", seed {first['seed']}"
    return (
        f"{first['trace']} x {first['rate_scale']:g} on {first['fleet']}: "
        f"{first['arrived']} requests, {first['offered_per_s']:.2f} /s{times} (seconds)"
    )


def _footnotes(summaries: Sequence[Summary], differences: Sequence[Difference]) -> list[str]:
    options = summaries[0]["options"]
    lines = []
    if options and not options["oracle"]:
        lines.append(
            f"Belief {100 * options['model_error']:.0f} % wrong, scrapes every "
            f"{options['scrape_interval_s']:g} s and {options['telemetry_delay_s']:g} s late, "
            f"{options['length_predictor']} lengths, "
            f"feedback {'on' if options['feedback'] else 'off'}, plan "
            f"{'on' if options['plan'] else 'off'}."
        )
    if differences:
        method = "paired over seeds" if differences[0].method == "seeds" else "block bootstrap"
        if not all(difference.is_known for difference in differences):
            lines.append(TOO_FEW)
        elif any(difference.is_noise for difference in differences):
            lines.append(f"noise: the 95 % interval of the difference holds zero ({method}).")
        else:
            lines.append(f"Every difference is more than noise (95 % intervals, {method}).")
    lost = lost_text(summaries)
    if lost:
        lines.append(lost)
    return lines + list(dict.fromkeys(note for s in summaries for note in s["notes"]))


def lost_text(summaries: Sequence[Summary]) -> str:
    """Why requests were lost, over all runs; empty when none was."""
    reasons: dict[str, int] = {}
    for summary in summaries:
        for reason, count in summary["reasons"].items():
            reasons[reason] = reasons.get(reason, 0) + count
    if not reasons:
        return ""
    listed = ", ".join(f"{reason} {count}" for reason, count in sorted(reasons.items()))
    return f"Lost, over all runs: {listed}."
