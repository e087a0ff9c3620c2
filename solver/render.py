"""A plan as tables for people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from solver.answer import Plan


def render(plan: Plan) -> RenderableType:
    """Summary, replicas, prices, shares and notes."""
    notes = (Text(f"note: {note}") for note in plan.notes)
    return Group(summary(plan), replica_table(plan), Shares(plan), *notes)


def summary(plan: Plan) -> Text:
    """One line: how good, how much, how long."""
    return Text(
        f"{plan.status} plan: {plan.objective:.1f} requests in the system "
        f"(gap {plan.gap:.2%}), {plan.cost_usd_per_hour:.2f} $/h, solved in {plan.solve_s:.2f} s"
    )


def replica_table(plan: Plan) -> Table:
    """Replicas by group, with their utilization and price."""
    table = plain_table("Replicas and prices")
    table.caption = "price: seconds of delay that one more engine-second of work adds in total"
    table.add_column("group", no_wrap=True)
    for name in ("now", "plan", "cards", "utilization", "$/h", "price s/s"):
        table.add_column(name, justify="right")
    for one in plan.replicas:
        table.add_row(
            one.group,
            str(one.running),
            Text(str(one.replicas), style="" if one.replicas == one.running else "bold"),
            str(one.cards),
            f"{one.utilization:.0%}" if one.replicas else "",
            f"{one.usd_per_hour:.2f}",
            f"{plan.price_of(one.group):.1f}" if one.replicas else "",
        )
    return table


class Shares:
    """Which part of each class goes where: a column a group, where the terminal has room for it.

    What all classes, or all groups, have in common stands in the title and not in every row.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._groups: list[str | None] = [one.group for one in plan.replicas if one.replicas]
        self._heads, of_groups = common([group for group in self._groups if group])
        self._names = list(dict.fromkeys(share.work_class for share in plan.shares))
        self._labels, of_classes = common(self._names)
        parts = (of_classes, f"on {of_groups}" if of_groups else "")
        shared = " ".join(part for part in parts if part)
        self._title = f"Shares ({shared})" if shared else "Shares"
        if any(share.group is None for share in plan.shares):
            self._groups.append(None)
            self._heads.append("turned away")

    def __rich_console__(
        self, console: Console, options: ConsoleOptions
    ) -> Iterator[RenderableType]:
        table = self._by_group()
        whole = Measurement.get(console, options.update(max_width=10_000), table).maximum
        yield Text(self._title, style="italic")
        yield table if whole <= options.max_width else self._in_words()

    def _by_group(self) -> Table:
        table = self._empty()
        for head in self._heads:
            table.add_column(head, justify="right", no_wrap=True)
        for name, label in self._rows():
            table.add_row(label, *_cells(self._plan.share_of(name), self._groups))
        return table

    def _in_words(self) -> Table:
        table = self._empty()
        table.add_column("goes to")
        for name, label in self._rows():
            cells = _cells(self._plan.share_of(name), self._groups)
            parts = zip(self._heads, cells, strict=True)
            table.add_row(label, ", ".join(f"{head} {cell}" for head, cell in parts if cell))
        return table

    def _empty(self) -> Table:
        table = plain_table()
        table.add_column("class", no_wrap=True)
        return table

    def _rows(self) -> Iterator[tuple[str, str]]:
        return zip(self._names, self._labels, strict=True)


def plain_table(title: str | None = None) -> Table:
    """A table without a frame: eighty columns hold three more words."""
    return Table(
        title=title,
        title_justify="left",
        caption_justify="left",
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )


def common(names: Sequence[str]) -> tuple[list[str], str]:
    """Names without the parts between slashes that all of them share, and those parts."""
    split = [name.split("/") for name in names]
    if len(split) < 2 or len({len(parts) for parts in split}) > 1:
        return list(names), ""
    same = [len(set(column)) == 1 for column in zip(*split, strict=True)]
    shared = "/".join(part for part, alike in zip(split[0], same, strict=True) if alike)
    kept = [
        "/".join(part for part, alike in zip(parts, same, strict=True) if not alike)
        for parts in split
    ]
    return kept, shared


def _cells(parts: dict[str | None, float], groups: Sequence[str | None]) -> Iterator[str]:
    for group in groups:
        share = parts.get(group, 0.0)
        yield f"{share:.0%}" if share > 0.005 else ("<1%" if share > 0 else "")
