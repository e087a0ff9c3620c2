"""Every usual client library against the demo's fleet: emulated engines, the real gateway."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from router.cli.demo import MODEL
from simulator.engine_server.tokens import words
from tests.engines.install import HOME, is_ready, python_of
from tests.engines.test_clients import output_of
from tests.integration.fleet import engines, gateway

pytestmark = [pytest.mark.engines, pytest.mark.timeout(2_400)]

HERE = Path(__file__).parent
SAID = words(0, 8)


@pytest.fixture(scope="module")
def fleet():
    """The demo's nine engines."""
    if not is_ready("clients"):
        pytest.skip("no clients here: run `make engines`")
    with engines() as config:
        yield config


async def test_every_python_client_gets_every_word(fleet):
    async with gateway(fleet) as door:
        printed = await output_of(python_of("clients"), HERE / "clients.py", door.url, MODEL)
        await door.settled()
    found = json.loads(printed.splitlines()[-1])
    for unlike_a_model in ("instructor", "openai_responses"):  # no JSON, no Responses API there
        del found[unlike_a_model]
    assert found == {
        "openai_chat": [SAID, 8],
        "openai_stream": [SAID, 8],
        "openai_completion": found["openai_completion"],
        "openai_leaving": 4,
        "openai_unknown_model": ["NotFoundError", "model_not_found"],
        "openai_models": [MODEL],
        "langchain": [SAID, SAID],
        "llama_index": [SAID, SAID],
        "litellm": [SAID, SAID],
        "llm_cli": SAID,
    }
    assert found["openai_completion"] > 8


async def test_the_node_client_as_well(fleet):
    if shutil.which("node") is None or not (HOME / "clients" / "node").is_dir():
        pytest.skip("no node here")
    script = HOME / "clients" / "node" / "client.mjs"  # imports are looked up beside the script
    shutil.copy(HERE / "client.mjs", script)
    async with gateway(fleet) as door:
        found = json.loads(await output_of("node", script, door.url, MODEL))
        await door.settled()
    assert found == {
        "whole": SAID,
        "streamed": SAID,
        "unknown": "NotFoundError 404 model_not_found",
    }
