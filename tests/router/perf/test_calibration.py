"""A user's CSV becomes overrides: constants are found again, bad lines are named."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from router.domain.errors import ConfigError, ImpossibleFleetError, TraceError, UnknownNameError
from router.perf.build import iteration_model
from router.perf.calibration import calibrate_csv
from router.perf.measurements import API_S, loaded_decode_terms
from router.perf.overrides import dump_overrides, load_overrides, parse_overrides
from router.perf.priors import Override

from .conftest import backend

ITERATIONS = "prefill_tokens,decode_seqs,context_tokens,time_s"
DEFAULTS = {"gpu": "t4", "model": "llama-3.1-8b", "tensor_parallel": "2"}
T4_PAIR = backend("t4", tensor_parallel=2)


def write(path: Path, header: str, rows: Sequence[Sequence[object]]) -> Path:
    path.write_text("\n".join([header, *(",".join(map(str, row)) for row in rows)]) + "\n")
    return path


def iterations(truth: Override) -> list[tuple[float, ...]]:
    """Iterations of a pair of T4 whose constants are ``truth``."""
    model = iteration_model(T4_PAIR, overrides=[truth])
    shapes = [(n, 0, 0) for n in (128, 512, 1024, 2048)]
    shapes += [(0, b, b * c) for b in (1, 4, 16, 64, 128) for c in (200, 2000)]
    return [(n, b, c, model.iteration_s(n, b, c, n * n / 2)) for n, b, c in shapes]


def test_a_slower_card_is_recognized(tmp_path: Path):
    truth = Override({"mfu": 0.2, "mbu": 0.5})
    file = write(tmp_path / "mine.csv", ITERATIONS, iterations(truth))
    (result,) = calibrate_csv(file, DEFAULTS)
    assert result.points == 14
    assert result.before > 25.0
    assert result.after < 1.0
    assert result.override.values["mfu"] == pytest.approx(0.2, rel=0.1)
    assert result.override.values["mbu"] == pytest.approx(0.5, rel=0.1)


def test_the_override_reaches_the_iteration_model(tmp_path: Path):
    file = write(tmp_path / "mine.csv", ITERATIONS, iterations(Override({"mbu": 0.4})))
    (result,) = calibrate_csv(file, DEFAULTS)
    (tmp_path / "o.yaml").write_text(dump_overrides([result.override], "why\nand how"))
    overrides = load_overrides(tmp_path / "o.yaml")
    slow = iteration_model(T4_PAIR, overrides=[Override({"mbu": 0.4})])
    calibrated = iteration_model(T4_PAIR, overrides=overrides)
    assert calibrated.iteration_s(0, 8, 4000) == pytest.approx(slow.iteration_s(0, 8, 4000), 0.03)
    elsewhere = backend("a100-80")
    assert iteration_model(elsewhere, overrides=overrides) == iteration_model(elsewhere)


def test_load_points_of_a_load_generator(tmp_path: Path):
    model = iteration_model(T4_PAIR, overrides=[Override({"decode_factor": 1.5})])
    rows: list[tuple[object, ...]] = []
    for clients in (1, 8, 32):
        tpot_s = sum(
            t.weight
            * model.iteration_s(
                round(t.prefill_tokens), round(t.decode_seqs), t.context_tokens, t.prefill_pairs
            )
            for t in loaded_decode_terms(clients, 400, 200)
        )
        ttft_s = API_S + model.iteration_s(400, 0, 0, 400**2 / 2)
        rows.append((clients, 400, 200, 1e3 * tpot_s, 1e3 * ttft_s))
    header = "concurrency,input_tokens,output_tokens,tpot_ms,ttft_ms"
    (result,) = calibrate_csv(write(tmp_path / "load.csv", header, rows), DEFAULTS)
    assert (result.points, result.ignored) == (4, 2)  # TTFT counts at concurrency 1 only
    assert result.before > 20.0
    assert result.after < 5.0


def test_one_file_may_hold_several_backends(tmp_path: Path):
    header = "gpu,model,tensor_parallel," + ITERATIONS
    rows = [("t4", "llama-3.1-8b", 2, 0, 1, 500, 0.05), ("l4", "qwen2.5-7b", 1, 0, 1, 500, 0.06)]
    results = calibrate_csv(write(tmp_path / "two.csv", header, rows), {})
    assert [(r.override.gpu, r.override.tensor_parallel) for r in results] == [("t4", 2), ("l4", 1)]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("0,4,x,0.1", "context_tokens is 'x', not a number"),
        ("0,-4,10,0.1", "decode_seqs is -4, expected 0 or more"),
        ("0,4,10,0", "time_s is 0"),
        ("0,4,10,nan", "time_s is nan"),
        ("0,0,10,0.1", "both 0"),
        ("0,4,10", "no time_s"),
        ("0,4,10,0.1,7", "more values than columns"),
    ],
)
def test_a_bad_line_is_named_with_its_number(tmp_path: Path, row: str, message: str):
    file = tmp_path / "bad.csv"
    file.write_text(f"{ITERATIONS}\n0,1,500,0.05\n{row}\n")
    with pytest.raises(TraceError, match=rf"bad\.csv:3: .*{message}"):
        calibrate_csv(file, DEFAULTS)


def test_a_card_count_that_is_no_number_is_named(tmp_path: Path):
    file = write(tmp_path / "c.csv", "tensor_parallel," + ITERATIONS, [("two", 0, 1, 1, 1)])
    with pytest.raises(TraceError, match=r"c\.csv:2: .*tensor_parallel is 'two'"):
        calibrate_csv(file, DEFAULTS)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("prefill_tokens,decode_seqs,time_s", "expected the columns"),
        ("concurrency,input_tokens,output_tokens", "tpot_s or ttft_s"),
        (ITERATIONS + ",colour", "unknown column 'colour'"),
        ("", "expected the columns"),
    ],
)
def test_missing_and_unknown_columns_are_named(tmp_path: Path, header: str, message: str):
    (tmp_path / "c.csv").write_text(header + "\n1,1,1,1\n")
    with pytest.raises(ConfigError, match=message):
        calibrate_csv(tmp_path / "c.csv", DEFAULTS)


def test_a_file_that_names_no_gpu_asks_for_one(tmp_path: Path):
    file = write(tmp_path / "c.csv", ITERATIONS, [(0, 1, 1, 1)])
    with pytest.raises(ConfigError, match="name it with --gpu"):
        calibrate_csv(file, {"model": "llama-3.1-8b"})


def test_an_empty_and_an_absent_file_are_named(tmp_path: Path):
    with pytest.raises(ConfigError, match="no usable measurement"):
        calibrate_csv(write(tmp_path / "c.csv", ITERATIONS, []), DEFAULTS)
    with pytest.raises(ConfigError, match="cannot read"):
        calibrate_csv(tmp_path / "absent.csv", DEFAULTS)
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="not a CSV file"):
        calibrate_csv(tmp_path / "binary.csv", DEFAULTS)


def test_measurements_of_a_backend_that_cannot_exist_are_refused(tmp_path: Path):
    file = write(tmp_path / "c.csv", ITERATIONS, [(0, 1, 1, 1)])
    with pytest.raises(ImpossibleFleetError, match="does not fit"):
        calibrate_csv(file, {"gpu": "t4", "model": "llama-3.1-8b"})
    with pytest.raises(UnknownNameError, match="unknown GPU 't5'"):
        calibrate_csv(file, {**DEFAULTS, "gpu": "t5"})


def test_overrides_survive_the_round_trip(tmp_path: Path):
    mine = (
        Override({"mfu": 0.33, "step_us": 0.0}, gpu="t4", tensor_parallel=2),
        Override({"decode_factor": 1.3}, engine="sglang", model="llama-3.1-8b"),
    )
    (tmp_path / "o.yaml").write_text(dump_overrides(mine))
    assert load_overrides(tmp_path / "o.yaml") == mine


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- a\n", "expected one key, overrides"),
        ("overrides: 3\n", "expected a list"),
        ("overrides: [3]\n", "entry 1: expected a mapping"),
        ("overrides: [{gpu: t4}]\n", "entry 1: no constant"),
        ("overrides: [{mfu: fast}]\n", "mfu must be a number"),
        ("overrides: [{mfu: true}]\n", "mfu must be a number"),
        ("overrides: [{gpu: 4, mfu: 0.3}]\n", "gpu must be a name"),
        ("overrides: [{mfuu: 0.3}]\n", "unknown constant 'mfuu'"),
        ("overrides: [\n", "is not YAML"),
    ],
)
def test_a_bad_override_file_is_explained(tmp_path: Path, text: str, message: str):
    (tmp_path / "o.yaml").write_text(text)
    with pytest.raises(ConfigError, match=rf"o\.yaml.*{message}"):
        load_overrides(tmp_path / "o.yaml")


def test_an_absent_override_file_is_named(tmp_path: Path):
    with pytest.raises(ConfigError, match="cannot read"):
        load_overrides(tmp_path / "none.yaml")
    assert parse_overrides([]) == ()
