"""One self-contained HTML page: what was compared, who is better, whether it is noise, plots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from simulator.compare import RANKING, Difference, best_policy, compare
from simulator.report import plots
from simulator.report.classes import classes_html, has_classes
from simulator.report.style import CSS
from simulator.report.table import TOO_FEW, average_seeds, lost_text
from simulator.report.words import seconds
from simulator.results import RunResult
from simulator.summary import Summary, summarize


def write_page(results: Sequence[RunResult], path: Path) -> None:
    """Write the page of one comparison.

    Args:
        results: runs on one trace, fleet and load.
        path: where to.
    """
    path.write_text(comparison_page(results), encoding="utf-8")


def comparison_page(results: Sequence[RunResult]) -> str:
    """Build the page of one comparison."""
    summaries = average_seeds([summarize(result) for result in results])
    runs = by_policy(results)
    differences = compare(results) if len(runs) > 1 else []
    title = f"{summaries[0]['trace']} on {summaries[0]['fleet']}"
    best = best_policy(results)
    sections = [
        section("What was replayed", facts(summaries, results)),
        section("Verdict", verdict(best, differences, summaries)),
        section("Figures", figures_table(summaries, best), "Seconds; lost is all not completed."),
        *_classes(summaries),
        section("Latency distributions", plots.cdf_plot(runs), "Dots mark P99."),
        section("Median, P90 and P99", plots.ranges_plot(runs)),
        section("Who served", plots.shares_plot(runs)),
    ]
    ranking = [difference for difference in differences if difference.metric is RANKING]
    if ranking:
        heading = f"E2E P99, difference to {best}"
        sections.append(section("Differences", plots.differences_plot(ranking, heading)))
        sections.append(section("All differences", differences_table(differences), opened=False))
    sections += _timelines(summaries, runs, best)
    return document(title, sections)


def _classes(summaries: Sequence[Summary]) -> list[str]:
    if not has_classes(summaries):
        return []
    caption = (
        "SLO met and goodput are over all that arrived; QoE (Andes) is 1 for a reader who never "
        "waits longer than the targets of the class; wait is the time in the router."
    )
    return [section("Service classes", table(*classes_html(summaries)), caption)]


def _timelines(
    summaries: Sequence[Summary], runs: Mapping[str, Sequence[RunResult]], best: str
) -> list[str]:
    """Engines over time, of the few best policies: a page of thirty is read by nobody."""
    ranked = sorted(summaries, key=lambda s: s["e2e_s"]["p99"] or float("inf"))
    shown = {summary["policy"] for summary in ranked[:_TIMELINES]}
    return [
        section(
            f"Engines over time: {policy}", plots.timeline_plot(members[0]), opened=policy == best
        )
        for policy, members in runs.items()
        if policy in shown
    ]


def by_policy(results: Sequence[RunResult]) -> dict[str, list[RunResult]]:
    """Runs by policy, in the order of first appearance."""
    runs: dict[str, list[RunResult]] = {}
    for result in results:
        runs.setdefault(result.policy, []).append(result)
    return runs


def facts(summaries: Sequence[Summary], results: Sequence[RunResult]) -> str:
    """What was replayed, with the assumptions that decide the outcome."""
    first, options = summaries[0], summaries[0]["options"]
    seeds = sorted({result.seed for result in results})
    rows = {
        "Trace": f"{first['trace']}, times divided by {first['rate_scale']:g}",
        "Load": f"{first['arrived']:.0f} requests, {first['offered_per_s']:.2f} per second",
        "Fleet": fleet_text(results[0]),
        "Seeds": ", ".join(map(str, seeds)),
        "Belief": f"each backend's speed wrong by {100 * options['model_error']:.0f} % (sigma), "
        f"feedback {'on' if options['feedback'] else 'off'}, plan "
        f"{'on' if options['plan'] else 'off'}",
        "Signals": f"scraped every {options['scrape_interval_s']:g} s, known "
        f"{options['telemetry_delay_s']:g} s later; lengths from the "
        f"{options['length_predictor']} predictor",
    }
    body = "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in rows.items())
    notes = dict.fromkeys(note for summary in summaries for note in summary["notes"])
    lost = lost_text([summarize(result) for result in results])
    notes.update(dict.fromkeys([lost] if lost else []))
    warned = "".join(f'<p class="warn">{escape(note)}</p>' for note in notes)
    return f"<dl>{body}</dl>{warned}"


def fleet_text(result: RunResult) -> str:
    """The fleet in a line: ``2 x a100-80 (sglang), ...``."""
    kinds: dict[str, int] = {}
    for spec in result.backends:
        cards = f" x{spec.tensor_parallel}" if spec.tensor_parallel > 1 else ""
        kind = f"{spec.gpu}{cards} ({spec.engine}, {spec.model})"
        kinds[kind] = kinds.get(kind, 0) + 1
    return ", ".join(f"{count} × {kind}" for kind, count in kinds.items())


def verdict(best: str, differences: Sequence[Difference], summaries: Sequence[Summary]) -> str:
    """Who is best on E2E P99, and from whom it cannot be told apart."""
    lead = next(summary for summary in summaries if summary["policy"] == best)
    text = (
        f"<p><strong>{escape(best)}</strong> has the lowest end-to-end P99: "
        f"{seconds(lead['e2e_s']['p99'])} s, with {100 * lead['slo_attainment']:.1f} % of requests "
        "within their SLO.</p>"
    )
    ranking = [difference for difference in differences if difference.metric is RANKING]
    tied = [difference.policy for difference in ranking if difference.is_noise]
    if not all(difference.is_known for difference in ranking):
        text += f'<p class="warn">{escape(TOO_FEW.removeprefix("? ").capitalize())}</p>'
    elif tied:
        names = ", ".join(map(escape, tied))
        text += f'<p class="warn">The difference to {names} is <strong>noise</strong>: its 95 % '
        text += "interval holds zero.</p>"
    elif ranking:
        text += "<p>The difference to every other policy is more than noise.</p>"
    if ranking:
        how = (
            "Student's t, paired over seeds"
            if ranking[0].method == "seeds"
            else ("paired block bootstrap over time; more seeds (--seeds 5) would tell more")
        )
        text += f'<p class="quiet">Intervals: {how}. Absolute P99s of any simulator are less '
        text += "certain than differences between policies on the same arrivals.</p>"
    return text


_TIMELINES = 6
_COLUMNS = (
    *(("TTFT", "ttft_s", figure) for figure in ("mean", "p50", "p90", "p99")),
    *(("TPOT", "tpot_s", figure) for figure in ("p50", "p99")),
    *(("E2E", "e2e_s", figure) for figure in ("mean", "p50", "p90", "p99")),
)


def figures_table(summaries: Sequence[Summary], best: str) -> str:
    """All figures of all policies."""
    head = "".join(f"<th>{name} {figure}</th>" for name, _, figure in _COLUMNS)
    rows = []
    for summary in summaries:
        cells = "".join(f"<td>{seconds(summary[key][figure])}</td>" for _, key, figure in _COLUMNS)
        lost = summary["rejected"] + summary["failed"] + summary["cancelled"]
        marked = ' class="best"' if summary["policy"] == best else ""
        rows.append(
            f"<tr{marked}><th>{escape(summary['policy'])}</th>{cells}"
            f"<td>{100 * summary['slo_attainment']:.1f} %</td>"
            f"<td>{summary['goodput_per_s']:.2f}</td><td>{lost:.0f}</td></tr>"
        )
    ends = "<th>SLO met</th><th>goodput /s</th><th>lost</th>"
    return table(f"<tr><th>policy</th>{head}{ends}</tr>", rows)


def _interval(difference: Difference) -> str:
    if not difference.is_known:
        return "-"
    return f"[{difference.low:+.4g}, {difference.high:+.4g}]"


def differences_table(differences: Sequence[Difference]) -> str:
    """Every difference with its interval and its verdict."""
    rows = [
        f"<tr><th>{escape(d.policy)}</th><td class='text'>{d.metric.name}</td>"
        f"<td>{d.mean:+.4g}</td><td>{_interval(d)}</td>"
        f"<td class='text {d.verdict}'>{d.verdict}</td></tr>"
        for d in differences
    ]
    reference = escape(differences[0].reference)
    head = f"<tr><th>policy</th><th class='text'>figure</th><th>minus {reference}</th>"
    return table(head + "<th>95 % interval</th><th class='text'>verdict</th></tr>", rows)


def table(head: str, rows: Sequence[str]) -> str:
    """An HTML table that scrolls sideways when it must."""
    body = "".join(rows)
    return f'<div class="scroll"><table><thead>{head}</thead><tbody>{body}</tbody></table></div>'


def section(title: str, body: str, caption: str = "", *, opened: bool = True) -> str:
    """One foldable part of the page."""
    quiet = f'<p class="quiet">{escape(caption)}</p>' if caption else ""
    state = " open" if opened else ""
    return f"<details{state}><summary>{escape(title)}</summary>{body}{quiet}</details>"


def document(title: str, sections: Sequence[str], options: Mapping[str, str] | None = None) -> str:
    """The whole page; nothing in it is fetched from anywhere."""
    about = " · ".join(f"{escape(k)} {escape(v)}" for k, v in (options or {}).items())
    return (
        "<!doctype html>\n<html lang='en'><head><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width, initial-scale=1'>"
        f"<title>Motley: {escape(title)}</title><style>{CSS}</style></head>"
        f"<body><main><header><p class='brand'>Motley</p><h1>{escape(title)}</h1>"
        f"<p class='quiet'>{about}</p></header>{''.join(sections)}</main></body></html>\n"
    )
