"""What is asked stays within the engine's bounds and within the time."""

from dataclasses import replace

from simulator.live.shapes import WINDOW_TOKENS, Bounds, Pace, plan_shapes

PACE = Pace(prefill_s=1e-4, step_s=0.01, seq_s=1e-4)
BOUNDS = Bounds(
    max_prompt_tokens=2_048, max_seqs=16, kv_tokens=100_000, chunk_tokens=2_048, shape_s=10.0
)


def of_kind(kind, bounds=BOUNDS, pace=PACE):
    return [shape for shape in plan_shapes(bounds, pace) if shape.kind == kind]


def test_prompts_double_in_length():
    assert [s.prompt_tokens for s in of_kind("prefill")] == [16, 32, 64, 128, 256, 512, 1024, 2048]


def test_every_concurrency_is_asked_with_a_short_and_a_long_context():
    contexts = {}
    for shape in of_kind("decode"):
        if not shape.held_back:
            contexts.setdefault(shape.seqs, []).append(shape.prompt_tokens)
    assert list(contexts) == [1, 2, 4, 8, 16]
    assert all(short * 4 <= long for short, long in contexts.values())


def test_something_of_every_kind_is_held_back():
    assert {shape.kind for shape in plan_shapes(BOUNDS, PACE) if shape.held_back} == {
        "prefill",
        "decode",
        "mixed",
    }


def test_answers_outlast_the_prompts_of_the_others():
    for shape in of_kind("decode"):
        iterations_of_prompts = shape.seqs * shape.prompt_tokens / BOUNDS.chunk_tokens
        assert shape.output_tokens >= iterations_of_prompts + WINDOW_TOKENS


def test_memory_concurrency_and_length_are_kept():
    tight = replace(BOUNDS, kv_tokens=3_000, max_seqs=6, max_prompt_tokens=500)
    shapes = plan_shapes(tight, PACE)
    assert shapes
    for shape in shapes:
        assert shape.kv_tokens <= 3_000
        assert shape.seqs + bool(shape.injected_tokens) <= 6
        assert max(shape.prompt_tokens, shape.injected_tokens) <= 500


def test_a_prompt_that_needs_two_iterations_is_not_mixed():
    small = replace(BOUNDS, chunk_tokens=256)
    assert {s.injected_tokens for s in of_kind("mixed", small)} == {128}


def test_a_slow_engine_is_asked_less():
    slow = Pace(prefill_s=1e-2, step_s=0.3, seq_s=1e-3)
    asked = plan_shapes(BOUNDS, slow)
    assert 0 < len(asked) < len(plan_shapes(BOUNDS, PACE))
    assert all(shape.expected_s(slow) <= BOUNDS.shape_s for shape in asked)
