"""A plan as tables for people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from solver.answer import Plan


def render(plan: Plan) -> RenderableType:
    """Summary, replicas, prices, shares and notes."""
    notes = (Text(f"note: {note}") for note in plan.notes)
    return Group(summary(plan), replica_table(plan), share_table(plan), *notes)


def summary(plan: Plan) -> Text:
    """One line: how good, how much, how long."""
    return Text(
        f"{plan.status} plan: {plan.objective:.1f} requests in the system "
        f"(gap {plan.gap:.2%}), {plan.cost_usd_per_hour:.2f} $/h, solved in {plan.solve_s:.2f} s"
    )


def replica_table(plan: Plan) -> Table:
    """Replicas by group, with their utilization and price."""
    table = Table(title="Replicas and prices", title_justify="left", caption_justify="left")
    table.caption = "price: seconds of delay that one more engine-second of work adds in total"
    table.add_column("group", overflow="fold")
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


def share_table(plan: Plan) -> Table:
    """Which part of each class goes where; columns are groups.

    What all classes, or all groups, have in common stands in the title and not in every row.
    """
    groups: list[str | None] = [one.group for one in plan.replicas if one.replicas]
    heads, of_groups = common([group for group in groups if group])
    names = list(dict.fromkeys(share.work_class for share in plan.shares))
    labels, of_classes = common(names)
    shared = " ".join(part for part in (of_classes, f"on {of_groups}" if of_groups else "") if part)
    title = f"Shares ({shared})" if shared else "Shares"
    if any(share.group is None for share in plan.shares):
        groups.append(None)
        heads.append("turned away")
    table = Table(title=title, title_justify="left")
    table.add_column("class", overflow="fold")
    for head in heads:
        table.add_column(head, justify="right", overflow="fold")
    for name, label in zip(names, labels, strict=True):
        table.add_row(label, *_cells(plan.share_of(name), groups))
    return table


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
