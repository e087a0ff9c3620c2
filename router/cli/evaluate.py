"""``motley evaluate``: what each weight format costs in quality, where the planner reads it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

from router.cli.output import write_text
from router.domain.errors import BadInputError, ConfigError

if TYPE_CHECKING:
    from simulator.evaluate.ask import Variant
    from simulator.evaluate.figures import Interval
    from simulator.evaluate.grade import Grade, Grader
    from simulator.evaluate.items import Asked
    from simulator.evaluate.study import Result

_WHO, _WHAT, _OUT = "Who is asked", "What is asked", "The results"
STANDINGS = {
    "within": "[green]within 5 %[/green]",
    "below": "[red]below by more than 5 %[/red]",
    "unsure": "[yellow]cannot tell: ask more[/yellow]",
}


def evaluate(
    fleet: Annotated[
        Path | None,
        typer.Argument(help="Fleet file: one backend of each weight format is asked, directly."),
    ] = None,
    variant: Annotated[
        list[str] | None,
        typer.Option(
            help="NAME=URL\\[#MODEL], instead of a fleet file (repeatable); a gateway will do.",
            rich_help_panel=_WHO,
        ),
    ] = None,
    baseline: Annotated[
        str,
        typer.Option(
            help="Compare with this one; else the unquantized, else the first.",
            rich_help_panel=_WHO,
        ),
    ] = "",
    api_key: Annotated[
        str,
        typer.Option(envvar="OPENAI_API_KEY", help="Their API key.", rich_help_panel=_WHO),
    ] = "",
    data: Annotated[
        str,
        typer.Option(
            help="JSONL file of your own items, or builtin: 20 of each category.",
            rich_help_panel=_WHAT,
        ),
    ] = "builtin",
    category: Annotated[
        list[str] | None,
        typer.Option(help="Only these: qa, reasoning, chat, code.", rich_help_panel=_WHAT),
    ] = None,
    concurrency: Annotated[
        int, typer.Option(min=1, help="Questions at once.", rich_help_panel=_WHAT)
    ] = 4,
    seed: Annotated[
        int, typer.Option(help="Sent along, with temperature 0.", rich_help_panel=_WHAT)
    ] = 0,
    timeout: Annotated[
        float, typer.Option(min=1.0, help="Seconds to wait for an answer.", rich_help_panel=_WHAT)
    ] = 120.0,
    write: Annotated[
        bool,
        typer.Option(
            "--write",
            help="Write the qualities into the fleet file, as planner.quality.",
            rich_help_panel=_OUT,
        ),
    ] = False,
    json_path: Annotated[
        str | None,
        typer.Option("--json", metavar="PATH|-", help="Write JSON.", rich_help_panel=_OUT),
    ] = None,
    answers: Annotated[
        Path | None,
        typer.Option(help="Write every answer and its grade (JSONL).", rich_help_panel=_OUT),
    ] = None,
) -> None:
    """Measure the quality of each weight format: what FP8 or AWQ costs against fp16.

    Short answers (exact match, F1), reasoning (the final number), chat (similarity of meaning) and
    code (run in a sandbox). The planner keeps a class away from formats below its
    planner.quality_floor.

    Examples: [bold]motley evaluate fleet.yaml --write[/bold],
    [bold]motley evaluate --variant fp16=http://a:8000 --variant awq=http://b:8000[/bold]
    """
    from simulator.evaluate import study
    from simulator.evaluate.items import read_items

    groups = _groups(fleet, variant, write=write)
    first = {model: study.baseline_of(group, baseline) for model, group in groups.items()}
    items, grader = _chosen(read_items(data), category)
    if not items:
        raise BadInputError(f"{data} holds no item of the categories asked for")
    results: dict[str, list[Result]] = {}
    quality: dict[str, float] = {}
    for model, group in groups.items():
        found = _evaluate(group, items, grader, api_key, concurrency, timeout, seed)
        results[model] = study.judged(items, found, first[model].name)
        named = model if len(groups) > 1 else ""
        quality |= study.planner_quality(results[model], model=named)
    if write and fleet is not None:
        _write(fleet, quality)
    _tell(items, results, json_path, answers, quality)
    if write:
        typer.echo(f"Wrote planner.quality of {fleet}: {quality or 'nothing quantized'}", err=True)


def _groups(
    fleet: Path | None, given: Sequence[str] | None, *, write: bool
) -> dict[str, list[Variant]]:
    """The variants of each model."""
    from router.config.load import load_config
    from simulator.evaluate.study import parse_variant, variants_of

    if (fleet is None) == (not given):
        raise BadInputError("give a fleet file, or --variant NAME=URL, one of the two")
    if fleet is None:
        if write:
            raise BadInputError("--write writes into a fleet file: give one")
        return {"": [parse_variant(text) for text in given or ()]}
    return variants_of(load_config(fleet))


def _chosen(items: list[Asked], wanted: Sequence[str] | None) -> tuple[list[Asked], Grader]:
    """The items of the categories wanted, and a grader that can grade them."""
    from router.domain.errors import UnknownNameError
    from simulator.evaluate.grade import Grader
    from simulator.evaluate.items import CATEGORIES
    from simulator.evaluate.minilm import MiniLm
    from simulator.evaluate.sandbox import run_code

    for name in wanted or ():
        if name not in CATEGORIES:
            raise UnknownNameError("category", name, CATEGORIES)
    kept = [one for one in items if not wanted or one.category in wanted]
    embedder = None
    if any(one.category == "chat" for one in kept):
        try:
            embedder = MiniLm.packaged()
        except ConfigError as error:
            if wanted:
                raise
            typer.echo(f"note: chat is left out: {error}", err=True)
            kept = [one for one in kept if one.category != "chat"]
    return kept, Grader(run_code, embedder)


def _evaluate(
    group: Sequence[Variant],
    items: Sequence[Asked],
    grader: Grader,
    api_key: str,
    concurrency: int,
    timeout_s: float,
    seed: int,
) -> dict[str, tuple[Variant, list[str], list[Grade]]]:
    """Ask and grade, a bar on standard error meanwhile."""
    from simulator.evaluate.ask import ask_all

    found = {}
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        for one in group:
            asking = bar.add_task(f"{escape(one.name)}: asked", total=len(items))
            said = asyncio.run(
                ask_all(
                    one,
                    items,
                    api_key=api_key,
                    concurrency=concurrency,
                    timeout_s=timeout_s,
                    seed=seed,
                    settled=lambda asking=asking: bar.advance(asking),  # type: ignore[misc]
                )
            )
            grading = bar.add_task(f"{escape(one.name)}: graded", total=len(items))
            grades = []
            for asked, answer in zip(items, said, strict=True):
                grades.append(grader.grade(asked, answer))
                bar.advance(grading)
            found[one.name] = (one, said, grades)
    return found


def _write(fleet: Path, quality: dict[str, float]) -> None:
    from router.config.edit import write_numbers
    from router.config.load import load_config

    before = dict(load_config(fleet).planner.quality)
    if quality:
        write_numbers(fleet, "quality", before | quality)


def _tell(
    items: Sequence[Asked],
    results: Mapping[str, Sequence[Result]],
    json_path: str | None,
    answers: Path | None,
    quality: dict[str, float],
) -> None:
    from simulator.evaluate import study

    told = [{"model": model, **study.document(items, one)} for model, one in results.items()]
    whole = {"models": told, "planner_quality": quality}
    if json_path == "-":
        print(json.dumps(whole))
    else:
        for model, one in results.items():
            _show(model, items, one)
    if json_path not in (None, "-"):
        write_text(str(json_path), json.dumps(whole, indent=2) + "\n")
    if answers is not None:
        rows = (row for one in results.values() for row in study.lines(items, one))
        write_text(answers, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def _show(model: str, items: Sequence[Asked], results: Sequence[Result]) -> None:
    counts: dict[str, int] = {}
    for one in items:
        counts[one.category] = counts.get(one.category, 0) + 1
    table = Table(title=escape(model) or None, title_justify="left", title_style="bold")
    table.add_column("")
    for result in results:
        table.add_column(escape(result.variant.name), justify="right", no_wrap=True)
    judged = [result.quality for result in results]
    for name, count in counts.items():
        cells = [_percent(quality.categories[name]) for quality in judged]
        table.add_row(f"{name}, {count} items", *cells)
    table.add_section()
    table.add_row("overall", *(_percent(quality.overall) for quality in judged))
    others = [one for one in judged if one.standing != "baseline"]
    if others:
        table.add_row("against the baseline", "", *(_percent(one.ratio) for one in others))
        table.add_row("", "baseline", *(STANDINGS[one.standing] for one in others))
    console = Console(highlight=False)
    console.print(table)
    console.print("Percent, with 95 % intervals. qa: F1 of words; chat: cosine to the reference.")
    for result in results:
        _more(console, items, result)


def _more(console: Console, items: Sequence[Asked], result: Result) -> None:
    """Exact matches, and what went wrong with the code, the commonest first."""
    from simulator.evaluate.study import exact_share

    if (exact := exact_share(result)) is not None:
        console.print(f"{escape(result.variant.name)}: {exact:.0%} of qa match exactly")
    wrong: dict[str, list[str]] = {}
    for asked, grade in zip(items, result.grades, strict=True):
        if grade.why:
            wrong.setdefault(grade.why, []).append(asked.name)
    shown: Callable[[tuple[str, list[str]]], int] = lambda pair: -len(pair[1])  # noqa: E731
    for why, names in sorted(wrong.items(), key=shown)[:5]:
        which = names[0] if len(names) == 1 else f"{len(names)} x, first {names[0]}"
        console.print(f"  code of {escape(result.variant.name)}, {which}: {escape(why)}")


def _percent(figure: Interval) -> str:
    low, high = 100 * figure.low, 100 * min(figure.high, 9.99)
    return f"{100 * figure.value:.1f} [dim]({low:.0f} to {high:.0f})[/dim]"
