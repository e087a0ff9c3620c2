"""The sweep file: relative paths, expansion, and every mistake named."""

from __future__ import annotations

from pathlib import Path

import pytest

from router.domain.errors import ConfigError, UnknownNameError
from simulator.sweep.spec import load_spec
from simulator.sweep.sweep import grid

GOOD = """
traces: [azure-conv-like, {source: conv.csv, duration_s: 5}]
fleets: [a.yaml, b.yaml]
policies: [motley, random]
loads: [2, 1]
seeds: 3
options: {model_error: 0.3, zone_delay_s: {x: 0.1}}
trace_options: {duration_s: 60, classes: {interactive: 3, bulk: 1}}
"""


def spec_file(folder: Path, text: str) -> Path:
    path = folder / "grid.yaml"
    path.write_text(text)
    return path


def test_everything_is_crossed_with_everything(tmp_path: Path) -> None:
    spec = load_spec(spec_file(tmp_path, GOOD))
    cells = grid(spec)

    assert len(cells) == len(set(cells)) == 2 * 2 * 2 * 2 * 3
    assert spec.loads == (1.0, 2.0)
    assert spec.fleets == (tmp_path / "a.yaml", tmp_path / "b.yaml")
    assert {cell.options.model_error for cell in cells} == {0.3}
    builtin, file = spec.traces
    assert (builtin.source, builtin.duration_s) == ("azure-conv-like", 60)
    assert (file.source, file.duration_s) == (str(tmp_path / "conv.csv"), 5)
    assert dict(file.classes) == {"interactive": 3, "bulk": 1}


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (("seeds: 3", "seed: 3"), "seed"),
        (("model_error: 0.3", "model_eror: 0.3"), "unknown field 'model_eror'.*model_error"),
        (("model_error: 0.3", "model_error: much"), "model_error"),
        (("model_error: 0.3", "model_error: -1"), "model_error"),
        (("duration_s: 5", "durration_s: 5"), "unknown field 'durration_s'"),
        (("loads: [2, 1]", "loads: [0]"), "loads must be"),
        (("loads: [2, 1]", "loads: []"), "loads is empty"),
        (("seeds: 3", "seeds: 0"), "seeds must be"),
        (("seeds: 3", "slo_attainment: 2"), "slo_attainment"),
        (("seeds: 3", "refine: 99"), "refine"),
        (("{source: conv.csv, ", "{"), "needs a source"),
    ],
)
def test_a_mistake_is_named(change: tuple[str, str], problem: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=problem):
        load_spec(spec_file(tmp_path, GOOD.replace(*change)))


def test_unknown_policies_and_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="motly"):
        load_spec(spec_file(tmp_path, GOOD.replace("[motley,", "[motly,")))
    with pytest.raises(ConfigError, match="cannot read"):
        load_spec(tmp_path / "none.yaml")
