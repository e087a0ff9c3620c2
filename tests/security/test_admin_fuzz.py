"""Requests made up from the document, sent by an admin: workers, reload, debug pages, batches."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.router.gateway.conftest import StartEngine, StartGateway
from tests.router.gateway.fakes import chat
from tests.router.gateway.test_openapi_fuzz import SCHEMATHESIS


@pytest.mark.full
@pytest.mark.timeout(900)
@pytest.mark.skipif(not SCHEMATHESIS.exists(), reason="schemathesis is not installed")
async def test_an_admin_breaks_nothing_either(
    engine: StartEngine, gateway: StartGateway, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    gate = await gateway(
        await engine(chat()),
        admin={"api_keys": ["admin-key"]},
        batch={"directory": str(tmp_path)},
    )
    command = [
        *(str(SCHEMATHESIS), "run", f"{gate.url}/openapi.json", "--url", gate.url),
        *("-H", "Authorization: Bearer admin-key", "--request-timeout", "10"),
        *("--checks", "not_a_server_error", "--max-examples", "15", "--seed", "1"),
        # Those that say 503 by design, and the one that streams for ever.
        *("--exclude-path-regex", "^/(ready|readiness|live|dashboard/stream|v1/)"),
        *("--suppress-health-check", "all"),
    ]
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    told, _ = await process.communicate()
    assert process.returncode == 0, told.decode()[-6000:]
    assert "Traceback" not in caplog.text
    assert (await gate.get("/health")).status_code == 200
