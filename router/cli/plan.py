"""``motley plan``: what the cards should run, who should go where, and what a second is worth."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from router.cli import plan_more as more
from router.cli.learned import believed_of, read_known
from router.cli.output import show
from router.cli.plan_demand import demand_of, parse_weights
from router.cli.workload_options import (
    ClassesOption,
    DurationOption,
    FormatOption,
    ModelOption,
    ModelsOption,
    RateScaleOption,
    StartOption,
    StrictOption,
    trace_spec,
)
from router.domain.errors import ConfigError

if TYPE_CHECKING:
    from router.config.load import MotleyConfig
    from solver.answer import Plan
    from solver.capacity import Believed
    from solver.options import Limits
    from solver.workload import Workload
    from solver.worth import Try, Worth

_CARDS_OF_A_SHORT_SEARCH = 48
_GOALS, _RULES, _INSTEAD, _SOLVER = "Goals", "Rules", "Instead of a plan", "Solver"


def plan(
    workload: Annotated[
        str,
        typer.Option(
            help="What to plan for: a trace file, or azure-conv-like, azure-code-like, "
            "chat-prefix-like."
        ),
    ],
    fleet: Annotated[
        Path, typer.Option(help="Fleet file (YAML): its cards are the stock, its backends run now.")
    ],
    json_path: Annotated[
        str | None, typer.Option("--json", help="Write the plan as JSON; - is stdout.")
    ] = None,
    format_name: FormatOption = None,
    strict: StrictOption = False,
    rate_scale: RateScaleOption = 1.0,
    start: StartOption = 0.0,
    duration: DurationOption = None,
    model: ModelOption = None,
    models: ModelsOption = "",
    classes: ClassesOption = "",
    seed: Annotated[int, typer.Option(help="Seed of built-in workloads.")] = 0,
    weights: Annotated[
        str,
        typer.Option(
            help="Exchange rates into requests in the system, as in cost=0.1,energy=2: latency, "
            "cost (per $/h), energy (per kW), switching, unserved, fairness.",
            rich_help_panel=_GOALS,
        ),
    ] = "",
    budget: Annotated[
        float | None,
        typer.Option(help="Most that the replicas may cost, in $/h.", rich_help_panel=_RULES),
    ] = None,
    min_replicas: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Replicas of every model, at least; 1 unless the file says otherwise.",
            rich_help_panel=_RULES,
        ),
    ] = None,
    max_zone_share: Annotated[
        float | None,
        typer.Option(help="Most of a model's replicas in one zone.", rich_help_panel=_RULES),
    ] = None,
    hysteresis: Annotated[
        float,
        typer.Option(
            help="Move nothing that improves the plan by less than this share.",
            rich_help_panel=_RULES,
        ),
    ] = 0.0,
    max_moves: Annotated[
        int | None, typer.Option(help="Most replicas to start.", rich_help_panel=_RULES)
    ] = None,
    by_tenant: Annotated[
        bool, typer.Option("--by-tenant", help="Plan for each tenant.", rich_help_panel=_RULES)
    ] = False,
    strict_slo: Annotated[
        bool,
        typer.Option(
            "--strict-slo",
            help="Refuse classes whose latency target no engine can meet.",
            rich_help_panel=_RULES,
        ),
    ] = False,
    allow_unserved: Annotated[
        bool,
        typer.Option(
            "--allow-unserved",
            help="Return a plan that turns requests away when not all fit.",
            rich_help_panel=_RULES,
        ),
    ] = False,
    worth: Annotated[
        bool,
        typer.Option(
            "--worth",
            help="Instead: what one more replica of each group would save, and what may go.",
            rich_help_panel=_INSTEAD,
        ),
    ] = False,
    buy: Annotated[
        bool,
        typer.Option(
            "--buy",
            help="Instead: the cheapest fleet that could be rented for this workload.",
            rich_help_panel=_INSTEAD,
        ),
    ] = False,
    offers: Annotated[
        Path | None,
        typer.Option(
            help="Price list (YAML) for --buy, as in t4: 0.53; the catalogue's by default.",
            rich_help_panel=_INSTEAD,
        ),
    ] = None,
    learned: Annotated[
        Path | None,
        typer.Option(
            help="Plan with the speeds that a gateway learned of these cards and kept in this file "
            "(telemetry.learned.file); trials begin with the lengths and the tail in it too."
        ),
    ] = None,
    trial: Annotated[
        bool,
        typer.Option(
            help="Simulate the fleet to buy, and buy a larger one until 99 % meet their targets; "
            "with --worth, simulate one more and one less of each group.",
            rich_help_panel=_INSTEAD,
        ),
    ] = True,
    time_limit: Annotated[
        float, typer.Option(help="Seconds to search for.", rich_help_panel=_SOLVER)
    ] = 30.0,
    gap: Annotated[
        float,
        typer.Option(help="Stop this close to the optimum (relative).", rich_help_panel=_SOLVER),
    ] = 0.001,
) -> None:
    """Decide what the fleet's cards should run, and which requests should go where.

    The price of a group says how many seconds of delay one more engine-second of work there
    adds; the router uses it to keep fast cards for those who need them.

    Example: [bold]motley plan --workload azure-conv-like --fleet fleet.yaml --rate-scale 2[/bold]
    """
    from router.config.load import load_config
    from simulator.report.outputs import check_place
    from simulator.workload import build_trace
    from solver.render import render
    from solver.settings import limits_of

    _check_question(worth=worth, buy=buy, offers=offers)
    if json_path not in (None, "-"):
        check_place(Path(json_path or ""))
    config = load_config(fleet)
    spec = trace_spec(
        workload,
        format_name=format_name,
        strict=strict,
        rate_scale=rate_scale,
        start=start,
        duration=duration,
        model=model,
        models=models,
        classes=classes,
    )
    trace, notes = build_trace(spec, seed)
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
    given_limits = {
        "budget_usd_per_hour": budget,
        "min_replicas": min_replicas,
        "max_zone_share": max_zone_share,
        "max_moves": max_moves,
    }
    limits = replace(
        limits_of(config),
        **{name: value for name, value in given_limits.items() if value is not None},  # type: ignore[arg-type]
        hysteresis=hysteresis,
        strict_slo=strict_slo,
        allow_unserved=allow_unserved,
        time_limit_s=time_limit,
        mip_gap=gap,
    )
    known = read_known(learned)
    believed = believed_of(known, config, time.time())
    if known is not None and not believed:
        print(f"note: {learned} has no speeds of these cards to plan with", file=sys.stderr)
    demand = demand_of(trace, config, by_tenant=by_tenant)
    given = {**config.planner.weights, **parse_weights(weights)}
    if buy:
        tried = more.simulated(trace, config, known) if trial else None
        with _busy("buying"):
            purchase = more.buy_fleet(
                demand, config, limits, offers=offers, trial=tried, believed=believed
            )
        show(more.purchase_json(purchase), lambda: more.purchase_view(purchase), json_path)
    elif worth:
        waiting = more.waiting(trace, config, known) if trial else None
        valued = _worth(demand, config, given, limits, believed, waiting)
        show(more.worth_json(valued), lambda: more.worth_view(valued), json_path)
    else:
        found = _plan(demand, config, given, limits, believed)
        for note in found.notes if json_path else ():
            print(f"note: {note}", file=sys.stderr)
        show(found.to_json(), lambda: render(found), json_path)


def _check_question(*, worth: bool, buy: bool, offers: Path | None) -> None:
    if worth and buy:
        raise ConfigError("--worth looks at the fleet there is, --buy at another: give one of them")
    if offers is not None and not buy:
        raise ConfigError("--offers is the price list of --buy, which is not given")


def _plan(
    demand: Workload,
    config: MotleyConfig,
    weights: Mapping[str, object],
    limits: Limits,
    believed: Believed,
) -> Plan:
    from solver.background import search_apart
    from solver.plan import plan as make_plan
    from solver.search import search

    # A small search ends before another process has started; a long one must be stoppable.
    cards = sum(spec.tensor_parallel for spec in config.fleet.backends)
    searcher = search_apart if cards > _CARDS_OF_A_SHORT_SEARCH else search
    with _busy("planning"):
        return make_plan(
            demand,
            config.fleet,
            weights,
            limits,
            hardware=config.hardware,
            believed=believed,
            searcher=searcher,
        )


def _worth(
    demand: Workload,
    config: MotleyConfig,
    weights: Mapping[str, object],
    limits: Limits,
    believed: Believed,
    trial: Try | None,
) -> tuple[Worth, ...]:
    """Values of the model; where there is a trial, those of the simulator beside them."""
    from solver.options import Weights
    from solver.worth import tried, worth

    with _busy("valuing"):
        chosen = Weights.from_mapping(weights)
        found = worth(
            demand, config.fleet, chosen, limits, hardware=config.hardware, believed=believed
        )
    if trial is None:
        return found
    with _busy("simulating one more and one less of each"):
        return tried(found, config.fleet, trial)


def _busy(what: str) -> Any:
    """A spinner on stderr, where that is a terminal."""
    from rich.console import Console

    return Console(stderr=True).status(what)
