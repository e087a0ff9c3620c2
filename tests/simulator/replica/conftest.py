"""Every behaviour is asked of both engines."""

from __future__ import annotations

import pytest


@pytest.fixture(params=[True, False], ids=["exact", "fast"])
def exact(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)
