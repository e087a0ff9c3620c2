"""What ``motley plan`` does besides planning: buying a fleet, and valuing the one there is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

_UNPRICED = (
    "unpriced: its rent weighs nothing, so there is nothing to set the delay against; give the GPU "
    "a price (planner.usd_per_hour) and cost a weight (--weights cost=0.05)"
)

if TYPE_CHECKING:
    from rich.console import RenderableType

    from router.config.load import MotleyConfig
    from router.domain.fleet import Fleet
    from solver.capacity import Believed
    from solver.offers import Offer
    from solver.options import Limits
    from solver.sizing import Purchase, Trial, Verdict
    from solver.workload import Workload
    from solver.worth import Try, Worth
    from telemetry.learned import Learned


def buy_fleet(
    workload: Workload,
    config: MotleyConfig,
    limits: Limits,
    *,
    offers: Path | None,
    trial: Trial | None,
    believed: Believed,
) -> Purchase:
    """Buy the cheapest fleet from a price list, or from the catalogue's default prices."""
    from solver.offers import catalogue_offers
    from solver.sizing import buy

    listed = load_offers(offers, config) if offers else catalogue_offers(config.hardware)
    return buy(
        workload,
        listed,
        limits,
        hardware=config.hardware,
        templates=config.fleet.backends,
        trial=trial,
        believed=believed,
    )


def load_offers(path: Path, config: MotleyConfig) -> tuple[Offer, ...]:
    """Read a price list (YAML).

    Raises:
        ConfigError: it cannot be read or is no mapping.
        WorkloadError: an entry that makes no sense.
    """
    import yaml

    from router.domain.errors import ConfigError
    from solver.offers import read_offers

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"cannot read the price list {path}: {error}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path} must map GPUs to prices, as in t4: 0.53")
    return read_offers({str(gpu): entry for gpu, entry in content.items()}, config.hardware)


def simulated(trace: Any, config: MotleyConfig, learned: Learned | None) -> Trial:
    """A trial that replays the trace over the fleet with the file's own policy."""
    from simulator.run import run_policy
    from simulator.summary import summarize
    from solver.sizing import Verdict

    def tried(fleet: Fleet) -> Verdict:
        mine = replace(config, fleet=fleet)
        summary = summarize(run_policy(trace, mine, config.policy.name, learned=learned))
        return Verdict(
            summary["slo_attainment"],
            f"{summary['slo_attainment']:.2%} of requests met their targets in simulation "
            f"(P99 TTFT {summary['ttft_s']['p99']:.2f} s, E2E {summary['e2e_s']['p99']:.1f} s)",
        )

    return tried


def waiting(trace: Any, config: MotleyConfig, learned: Learned | None) -> Try:
    """Mean requests in the system when the trace is replayed over a fleet (Little's law)."""
    from simulator.run import run_policy
    from simulator.summary import observed_s, summarize

    def tried(fleet: Fleet) -> float:
        mine = replace(config, fleet=fleet)
        result = run_policy(trace, mine, config.policy.name, learned=learned)
        figures = summarize(result)
        mean_s = figures["e2e_s"]["mean"] or 0.0
        return float(mean_s * figures["completed"] / observed_s(result))

    return tried


def purchase_json(found: Purchase) -> dict[str, Any]:
    """The plan's own JSON, with the fleet and how it was arrived at."""
    return {
        **found.best.plan.to_json(),
        "backends": backend_entries(found.best.fleet),
        "kept": found.kept,
        "attempts": [
            {
                "ceiling_factor": one.slack,
                "cost_usd_per_hour": one.plan.cost_usd_per_hour,
                "slo_attainment": one.verdict.attainment if one.verdict else None,
            }
            for one in found.attempts
        ],
        "single_type_usd_per_hour": found.alone,
        "saved": found.saved,
    }


def backend_entries(fleet: Fleet) -> list[dict[str, Any]]:
    """The fleet as ``backends`` of a fleet file."""
    entries = []
    for members in fleet.groups().values():
        spec = members[0]
        entry: dict[str, Any] = {
            "gpu": spec.gpu,
            "count": len(members),
            "engine": spec.engine,
            "tensor_parallel": spec.tensor_parallel,
            "model": spec.model,
        }
        if spec.quantization:
            entry["quantization"] = spec.quantization
        if spec.max_model_len is not None:
            entry["max_model_len"] = spec.max_model_len
        entries.append(entry)
    return entries


def purchase_view(found: Purchase) -> RenderableType:
    """The fleet to buy as YAML, how it was arrived at, and what single types would cost."""
    import yaml
    from rich.console import Group
    from rich.text import Text

    from solver.render import plain_table

    lines = [Text(_attempt_line(n, one)) for n, one in enumerate(found.attempts, start=1)]
    if not found.kept:
        lines.append(Text("the promise does not hold yet: raise the budget or loosen the targets"))
    lines += [Text(f"note: {note}") for note in found.best.plan.notes]
    table = plain_table()
    table.add_column("GPU")
    table.add_column("$/h", justify="right")
    for gpu, rent in sorted(found.alone.items(), key=lambda item: (item[1] is None, item[1])):
        table.add_row(gpu, "cannot" if rent is None else f"{rent:.2f}")
    fleet = yaml.safe_dump({"backends": backend_entries(found.best.fleet)}, sort_keys=False)
    saved = Text(
        "" if found.saved is None else f"saved against the best of them: {found.saved:.0%}"
    )
    title = Text("Cheapest fleet of one GPU type", style="italic")
    return Group(*lines, Text("\n" + fleet), title, table, saved)


def _attempt_line(number: int, one: Any) -> str:
    verdict: Verdict | None = one.verdict
    told = verdict.text if verdict else "not tried"
    return f"{number}. {one.plan.cost_usd_per_hour:.2f} $/h, ceilings x {one.slack:.2f}: {told}"


def worth_json(found: tuple[Worth, ...]) -> dict[str, Any]:
    """Plain JSON values."""
    from dataclasses import asdict

    return {
        "worth": [
            {**asdict(one), "buy": one.buy, "retire": one.retire, "advice": one.advice}
            for one in found
        ]
    }


def worth_view(found: tuple[Worth, ...]) -> RenderableType:
    """A table: delay saved by one more, added by one less."""
    from rich.console import Group
    from rich.text import Text

    from solver.render import common, plain_table

    tried = any(one.one_more_tried is not None for one in found)
    groups, of_all = common([one.group for one in found])
    title = "What a replica is worth"
    table = plain_table(f"{title} ({of_all})" if of_all else title)
    table.caption = (
        "delay that one more saves and one less adds, in requests in the system; (sim.): simulated"
        if tried
        else "delay that one more saves and one less adds, in requests in the system"
    )
    table.add_column("group", no_wrap=True)
    names = ["n", "busy", "$/h", "one more", "one less"]
    if tried:
        names = [*names[:4], "(sim.)", names[4], "(sim.)"]
    for name in (*names, "advice"):
        table.add_column(name, justify="right", no_wrap=True)
    for group, one in zip(groups, found, strict=True):
        cells = [group, str(one.replicas), f"{one.utilization:.0%}", f"{one.usd_per_hour:.2f}"]
        less = "cannot" if one.one_less is None else _delay(one.one_less)
        if tried:
            cells += [_delay(one.one_more), _delay(one.one_more_tried)]
            cells += [less, _delay(one.one_less_tried)]
        else:
            cells += [_delay(one.one_more), less]
        table.add_row(*cells, one.advice)
    if all(one.priced for one in found):
        return table
    return Group(table, Text(_UNPRICED, style="italic"))


def _delay(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"
