"""Requests made up from the gateway's own OpenAPI document: no 5xx of ours, whatever is sent."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from tests.router.gateway.conftest import StartEngine, StartGateway
from tests.router.gateway.fakes import chat

SCHEMATHESIS = Path(sys.executable).parent / "schemathesis"


@pytest.mark.full
@pytest.mark.timeout(600)
@pytest.mark.skipif(not SCHEMATHESIS.exists(), reason="schemathesis is not installed")
async def test_the_document_describes_what_is_served(
    engine: StartEngine,
    gateway: StartGateway,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
) -> None:
    gate = await gateway(await engine(chat()), batch={"directory": str(tmp_path)})
    command = [
        *(str(SCHEMATHESIS), "run", f"{gate.url}/openapi.json", "--url", gate.url),
        *("--checks", "not_a_server_error", "--max-examples", "25", "--seed", "1"),
        *(
            "--exclude-path-regex",
            "^/(ready|readiness|live|debug)",
            "--suppress-health-check",
            "all",
        ),
    ]
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    told, _ = await process.communicate()
    assert process.returncode == 0, told.decode()[-6000:]
    assert "Traceback" not in caplog.text
    assert (await gate.post()).status_code == 200
