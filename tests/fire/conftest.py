from __future__ import annotations

import pytest

from tests.router.gateway.conftest import engine, pytest_asyncio_loop_factories

__all__ = ["engine", "front_end", "pytest_asyncio_loop_factories"]


@pytest.fixture(params=["protocol", pytest.param("asgi", marks=pytest.mark.full)])
def front_end(request: pytest.FixtureRequest) -> str:
    """Both front ends; the second one in the heavy suite only."""
    chosen: str = request.param
    return chosen
