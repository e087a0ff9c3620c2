"""What may be planned with follows what was missed."""

from __future__ import annotations

import math
import random

import pytest

from router.queue.caution import ALLOWED, LEAST, STEP, Caution


def test_nothing_missed_nothing_held_back():
    caution = Caution()
    for _ in range(1_000):
        caution.learn("m", missed=False)
    assert caution.share("m") == 1.0


def test_a_miss_takes_a_step_back_and_many_kept_targets_undo_it():
    caution = Caution()
    caution.learn("m", missed=True)
    assert caution.share("m") == pytest.approx(math.exp(-STEP * (1 - ALLOWED)))
    for _ in range(98):
        caution.learn("m", missed=False)
    assert caution.share("m") < 1.0
    for _ in range(2):
        caution.learn("m", missed=False)
    assert caution.share("m") == 1.0


def test_nothing_but_misses_still_leaves_half():
    caution = Caution()
    for _ in range(1_000):
        caution.learn("m", missed=True)
    assert caution.share("m") == pytest.approx(LEAST)


def test_every_model_for_itself_and_other_targets_begin_anew():
    caution = Caution()
    caution.learn("m", missed=True)
    assert caution.share("other") == 1.0
    caution.forget()
    assert caution.share("m") == 1.0


@pytest.mark.parametrize("wrong", [1.2, 1.5])
def test_whatever_predictions_are_wrong_by_as_many_miss_as_are_allowed(wrong: float):
    """What was planned to take ``share`` of the target takes ``wrong`` as much, give or take."""
    caution, draw = Caution(), random.Random(1)
    missed = [False] * 20_000
    for n in range(len(missed)):
        missed[n] = caution.share("m") * wrong * draw.lognormvariate(0.0, 0.1) > 1.0
        caution.learn("m", missed=missed[n])
    assert sum(missed[5_000:]) / 15_000 == pytest.approx(ALLOWED, rel=0.2)
