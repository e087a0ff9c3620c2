"""The learners of a whole fleet, from the catalogue."""

from __future__ import annotations

from router.config.load import load_config
from router.perf.build import engine_defaults, iteration_model
from telemetry.learning import make_feedback, shape_of

CONFIG = {
    "backends": [
        {"gpu": "a100-80", "engine": "sglang", "model": "llama-3.1-8b"},
        {"gpu": "a100-40", "engine": "vllm", "model": "llama-3.1-8b"},
        {"gpu": "v100-32", "engine": "vllm", "model": "llama-3.1-8b", "engine_version": "0.8.5"},
    ]
}


def test_only_vllm_v1_computes_prompts_beside_decodes() -> None:
    backends = load_config(CONFIG).fleet.backends
    mixed = {b.name: shape_of(engine_defaults(b)).mixed for b in backends}
    assert mixed == {"a100-80-0": False, "a100-40-0": True, "v100-32-0": False}


def test_every_backend_starts_at_its_belief() -> None:
    backends = load_config(CONFIG).fleet.backends
    feedback = make_feedback(backends, lambda b: iteration_model(b).linear(), engine_defaults)
    assert feedback.corrections() == {b.name: (1.0, 1.0) for b in backends}
    assert feedback.calibration is not None
    estimate = feedback.calibration.estimates()["a100-40-0"]
    assert abs(estimate.cost.step_s / iteration_model(backends[1]).linear().step_s - 1) < 1e-9
