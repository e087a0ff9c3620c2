"""What commands are tried on."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def fleet(tmp_path: Path, request: pytest.FixtureRequest) -> str:
    """Path of a file with the test module's ``FLEET``."""
    path = tmp_path / "fleet.yaml"
    path.write_text(request.module.FLEET)
    return str(path)
