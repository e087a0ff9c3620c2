from __future__ import annotations

from tests.router.gateway.conftest import engine, front_end, gateway, pytest_asyncio_loop_factories

__all__ = ["engine", "front_end", "gateway", "pytest_asyncio_loop_factories"]
