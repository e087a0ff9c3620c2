"""Infeasible is an answer: which rule, by how much, and the smallest change that helps.

Each rule is relaxed on its own (elastic re-solve): its right-hand side gets a slack, the slack is
minimised, all other rules stay. What comes out are single changes, each of them enough.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import cvxpy as cp
import numpy as np

from router.domain.slo import Slo
from solver.assemble import assemble
from solver.figures import fill
from solver.highs import Highs
from solver.incidence import Incidence, incidence
from solver.model import rules_of, standard_form
from solver.options import Weights
from solver.problem import Floats, Problem
from solver.stock import Pool
from solver.terms import Numbers, declare_numbers, declare_unknowns

_TIME_LIMIT_S = 10.0
_MOST_REASONS = 3
_GAP = 0.02
_ABOUT_REPLICAS = ("stock", "ready", "starts", "moves", "budget", "zones", "engines")


@dataclass(frozen=True, slots=True)
class Elastic:
    """One rule made elastic.

    Attributes:
        slack: the CVXPY variable to be kept small.
        numbers: with the slack added to the rule's right-hand side.
        cost: what to minimise.
        dropped: rules left out altogether.
    """

    slack: Any
    numbers: Numbers
    cost: Any
    dropped: tuple[str, ...] = ()


Loosen = Callable[[Problem, Incidence, Numbers], Elastic]


def more_cards(problem: Problem, shape: Incidence, numbers: Numbers) -> Elastic:
    """Add islands of cards to the pools, as large as their largest, at least cost."""
    pools = problem.stock.pools
    extra = cp.Variable(len(pools), integer=True, name="slack")
    pieces = np.array(
        [[_pieces(pool, p, row) for p, pool in enumerate(pools)] for row in shape.stock_rows]
    )
    dollars = np.array([_island_price(problem, p) for p in range(len(pools))])
    return Elastic(
        extra, replace(numbers, slots=numbers.slots + pieces @ extra), (dollars + 1e-3) @ extra
    )


def more_budget(problem: Problem, shape: Incidence, numbers: Numbers) -> Elastic:  # noqa: ARG001
    """Raise the budget."""
    extra = cp.Variable(nonneg=True, name="slack")
    return Elastic(extra, replace(numbers, budget=numbers.budget + extra), extra)


def more_moves(problem: Problem, shape: Incidence, numbers: Numbers) -> Elastic:  # noqa: ARG001
    """Allow more replicas to be started."""
    extra = cp.Variable(nonneg=True, name="slack")
    return Elastic(extra, replace(numbers, moves=numbers.moves + extra), extra)


def fewer_ready(problem: Problem, shape: Incidence, numbers: Numbers) -> Elastic:  # noqa: ARG001
    """Ask for fewer replicas of every model."""
    less = cp.Variable(nonneg=True, name="slack")
    return Elastic(less, replace(numbers, ready=numbers.ready - less), less)


def any_zone(problem: Problem, shape: Incidence, numbers: Numbers) -> Elastic:  # noqa: ARG001
    """Let one zone hold any share of a model."""
    unused = cp.Variable(nonneg=True, name="slack")
    return Elastic(unused, numbers, unused, dropped=("zones",))


def less_traffic(problem: Problem, shape: Incidence, numbers: Numbers) -> Elastic:  # noqa: ARG001
    """Shrink all rates alike; the slack is the share that remains, and is kept large."""
    share = cp.Variable(bounds=[0, 1], name="slack")
    return Elastic(share, replace(numbers, rate=problem.rates * share), 1e3 * (1.0 - share))


def smallest(problem: Problem, loosen: Loosen, *, serving: bool) -> Floats | None:
    """The smallest slack that makes the problem feasible; ``None`` if none was found in time.

    Args:
        problem: the one that is infeasible.
        loosen: which rule becomes elastic.
        serving: whether every class that some engine can serve must be served; otherwise only
            the rules on replicas count.
    """
    shape = incidence(problem)
    unknowns = declare_unknowns(problem, placing=True)
    numbers = declare_numbers(problem, shape, placing=True)
    fill(numbers, problem, shape, Weights())
    reached = np.isin(np.arange(len(problem.classes)), problem.edge_class)
    numbers.unserved_limit.value = np.where(reached, 0.0, problem.rates)
    elastic = loosen(problem, shape, numbers)
    rules = rules_of(problem, unknowns, elastic.numbers, shape, placing=True)
    for name in ("tenants", *elastic.dropped):
        rules.pop(name, None)
    if not serving:
        rules = {name: rule for name, rule in rules.items() if name in _ABOUT_REPLICAS}
    statement = cp.Problem(cp.Minimize(elastic.cost), list(rules.values()))
    variables = {"slack": elastic.slack, "replicas": unknowns.replicas}
    form = standard_form(statement, rules, variables)
    answer = Highs(form).solve(time_limit_s=_TIME_LIMIT_S, gap=_GAP)
    return np.asarray(answer.x[form.columns["slack"]]) if answer.usable else None


def explain_rules(problem: Problem) -> str:
    """Why no placement keeps the rules on replicas, and which single changes would be enough."""
    changes = _changes(problem, serving=False)
    remedy = "; or ".join(changes) if changes else "no single change; relax several limits"
    rules = _rules_in_force(problem)
    return f"no placement keeps all of: {rules}. Enough on its own: {remedy}"


def explain_unserved(problem: Problem, unserved: Floats, weights: Weights) -> str:
    """Why requests would be turned away: too little room, or weights that would rather do that."""
    if _fits(problem):
        return _cheaper_unserved(problem.rates, unserved, weights)
    return explain_overload(problem, unserved)


def explain_overload(problem: Problem, unserved: Floats) -> str:
    """Why requests would be turned away, which, and which single changes would be enough."""
    rates = problem.rates
    worst = int(np.argmax(np.where(rates > 0, unserved / np.maximum(rates, 1e-12), 0.0)))
    share = unserved.sum() / rates.sum()
    changes = _changes(problem, serving=True)
    remaining = smallest(problem, less_traffic, serving=True)
    # "At most 100%" would be no change, and "at most 0%" no remedy.
    fitting = 0 if remaining is None else min(99, round(100 * float(remaining[0])))
    if fitting:
        changes.append(f"at most {fitting}% of this traffic")
    if _fits_without_targets(problem):
        changes.append("looser latency targets (without any the traffic fits)")
    remedy = "; or ".join(changes) if changes else "no single change found"
    return (
        f"capacity: {unserved.sum():.3g} of {rates.sum():.3g} requests per second ({share:.1%}) "
        f"find no room within their latency targets, most of all class "
        f"{problem.classes[worst].name} ({unserved[worst] / rates[worst]:.0%}). "
        f"Enough on its own: {remedy}. Or turn them away (--allow-unserved)"
    )


def _cheaper_unserved(rates: Floats, unserved: Floats, weights: Weights) -> str:
    return (
        f"weights: all {rates.sum():.3g} requests per second have room, but the plan turns "
        f"{unserved.sum():.3g} of them away, because serving them weighs more (cost="
        f"{weights.cost:g}, energy={weights.energy:g}) than not (unserved={weights.unserved:g}). "
        "Raise unserved or lower the others. Or turn them away (--allow-unserved)"
    )


def explain_orphans(problem: Problem) -> str:
    """Why some classes can be served by no engine at all."""
    alike: dict[str, list[str]] = {}
    for c in problem.orphans():
        work = problem.classes[c]
        reasons = sorted(set(problem.refusals.get(c, [])))
        if not reasons:
            groups = problem.stock.refused
            reasons = [why for group, why in sorted(groups.items()) if work.model in group]
        known = ", ".join(problem.models) or "none"
        why = "; ".join(reasons[:3]) or f"no engine runs {work.model}; models here: {known}"
        alike.setdefault(why, []).append(work.name)
    # A model that nobody runs is dozens of classes, all for the same reason.
    lines = [
        f"{_named(names)} can be served by nobody: {why}"
        for why, names in islice(alike.items(), _MOST_REASONS)
    ]
    unsaid = sum(map(len, islice(alike.values(), _MOST_REASONS, None)))
    return ". ".join([*lines, f"So it is with {unsaid} more classes"] if unsaid else lines)


def _named(names: Sequence[str]) -> str:
    more = f" and {len(names) - 1} more like it" if len(names) > 1 else ""
    return f"class {names[0]}{more}"


def _changes(problem: Problem, *, serving: bool) -> list[str]:
    found = []
    cards = smallest(problem, more_cards, serving=serving)
    if cards is not None and cards.sum() > 0.5:
        found.append(_cards_in_words(problem, cards))
    limits = problem.limits
    if limits.budget_usd_per_hour is not None:
        dollars = smallest(problem, more_budget, serving=serving)
        if dollars is not None:
            total = limits.budget_usd_per_hour + float(dollars[0])
            found.append(f"a budget of {total:.2f} $/h instead of {limits.budget_usd_per_hour:.2f}")
    if limits.max_moves is not None:
        moves = smallest(problem, more_moves, serving=serving)
        if moves is not None:
            total = limits.max_moves + int(np.ceil(float(moves[0]) - 1e-6))
            found.append(f"{total} replica starts instead of {limits.max_moves}")
    if not serving and limits.min_replicas:
        fewer = smallest(problem, fewer_ready, serving=serving)
        if fewer is not None:
            left = int(np.floor(limits.min_replicas - float(fewer[0]) + 1e-6))
            found.append(f"min_replicas of {left} instead of {limits.min_replicas}")
    if limits.max_zone_share < 1 and smallest(problem, any_zone, serving=serving) is not None:
        found.append("no limit on a zone's share")
    return found


def _cards_in_words(problem: Problem, islands: Floats) -> str:
    parts = []
    dollars = 0.0
    for p, count in enumerate(np.round(islands).astype(int)):
        if count:
            pool = problem.stock.pools[p]
            size = _largest(pool)
            parts.append(f"{count * size} more {pool.name}")
            dollars += count * _island_price(problem, p)
    return f"{' and '.join(parts)} (+{dollars:.2f} $/h)"


def _rules_in_force(problem: Problem) -> str:
    limits = problem.limits
    pools = ", ".join(f"{pool.cards} {pool.name}" for pool in problem.stock.pools)
    parts = [f"stock ({pools})", f"at least {limits.min_replicas} replica(s) of each model"]
    parts[1] += f" ({', '.join(problem.models)})"
    if limits.budget_usd_per_hour is not None:
        parts.append(f"a budget of {limits.budget_usd_per_hour:.2f} $/h")
    if limits.max_moves is not None:
        parts.append(f"at most {limits.max_moves} replica starts")
    if limits.max_zone_share < 1:
        parts.append(f"at most {limits.max_zone_share:.0%} of a model in one zone")
    return ", ".join(parts)


def _fits_without_targets(problem: Problem) -> bool:
    slos = {name: Slo(name) for name in problem.limits.slos}
    limits = replace(problem.limits, slos=slos, strict_slo=False)
    loose = assemble(problem.classes, problem.bases, problem.stock, limits)
    return _fits(loose)


def _fits(problem: Problem) -> bool:
    """Whether all of the traffic could be served."""
    remaining = smallest(problem, less_traffic, serving=True)
    return remaining is not None and float(remaining[0]) >= 1.0 - 1e-6


def _largest(pool: Pool) -> int:
    return max(pool.islands)


def _pieces(pool: Pool, index: int, row: Any) -> int:
    return _largest(pool) // row.size if row.pool == index else 0


def _island_price(problem: Problem, index: int) -> float:
    for base in problem.bases:
        if base.candidate.pool == index:
            return base.usd_per_hour / base.cards * _largest(problem.stock.pools[index])
    return 1e6  # nothing runs on these cards, so more of them do not help
