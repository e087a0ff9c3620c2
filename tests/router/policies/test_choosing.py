from __future__ import annotations

import random

from router.policies.choosing import least
from tests.fakes import views


def test_the_least_score_wins():
    fleet = views(a={}, b={}, c={})
    score = {"a": 2.0, "b": 1.0, "c": 3.0}
    assert least(fleet, lambda v: score[v.spec.name], random.Random(0)).spec.name == "b"


def test_ties_are_shared_evenly_among_the_best_only():
    fleet, rng = views(a={}, b={}, c={}), random.Random(0)
    score = {"a": 1.0, "b": 2.0, "c": 1.0}
    chosen = [least(fleet, lambda v: score[v.spec.name], rng).spec.name for _ in range(400)]
    assert set(chosen) == {"a", "c"}
    # A fair coin: 200 of 400, with a standard deviation of 10.
    assert 160 < chosen.count("a") < 240


def test_each_candidate_is_scored_once():
    scored: list[str] = []
    least(views(a={}, b={}), lambda v: float(scored.append(v.spec.name) or 0), random.Random(0))
    assert scored == ["a", "b"]
