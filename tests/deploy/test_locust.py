"""The Locust file against the demo's gateway."""

from __future__ import annotations

import asyncio
import json
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.integration.fleet import engines, gateway

FILE = Path(__file__).parents[2] / "deploy" / "locust" / "locustfile.py"


@pytest.mark.full
@pytest.mark.skipif(find_spec("locust") is None, reason="Locust comes with make test-full")
async def test_locust_runs_against_the_gateway_without_a_failure() -> None:
    with engines() as config:
        async with gateway(config) as gate:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "locust", "-f", str(FILE), "--host", gate.url),
                *("--headless", "-u", "4", "-r", "4", "-t", "8s", "--json", "--only-summary"),
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )
            out, err = await asyncio.wait_for(process.communicate(), 90)
            await gate.settled()
    assert process.returncode == 0, err.decode()[-2000:]
    rows = {(row["method"], row["name"]): row for row in json.loads(out)}
    assert rows["POST", "chat (interactive)"]["num_requests"] > 3
    assert rows["TTFT", "interactive"]["num_requests"] > 3
    assert sum(row["num_failures"] for row in rows.values()) == 0
