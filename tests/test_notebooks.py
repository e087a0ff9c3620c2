"""The notebooks run from top to bottom."""

from __future__ import annotations

import shutil
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from router.config.load import load_config

ROOT = Path(__file__).resolve().parents[1]
TUNE = ROOT / "notebooks" / "tune_ilp_weights.ipynb"


@pytest.mark.timeout(300)
def test_weights_are_tuned_and_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fleet = tmp_path / "fleet.yaml"
    shutil.copy(ROOT / "deploy" / "fleets" / "demo.yaml", fleet)
    monkeypatch.setenv("MOTLEY_FLEET", str(fleet))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    notebook = nbformat.read(TUNE, as_version=4)
    NotebookClient(
        notebook, timeout=280, kernel_name="python3", resources={"metadata": {"path": ROOT}}
    ).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 2
    said = "".join(output.get("text", "") for output in outputs)
    assert "on the front" in said
    written = load_config(fleet).planner.weights
    assert set(written) == {"cost", "energy"}
    # Several weights lead to one placement: the marked line tells those that are written.
    (marked,) = (line for line in said.splitlines() if line.startswith("*"))
    assert marked.endswith(f"cost: {written['cost']:g}, energy: {written['energy']:g}")
    assert "# The fleet that" in fleet.read_text()


def test_what_is_committed_is_small_and_was_run() -> None:
    assert TUNE.stat().st_size < 300_000
    notebook = nbformat.read(TUNE, as_version=4)
    ran = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.execution_count for cell in ran)
