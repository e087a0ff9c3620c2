"""Client libraries in front of the gateway in front of a real vLLM and a real SGLang."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path

import pytest

from tests.engines.conftest import need
from tests.engines.fleet import MODEL, post
from tests.engines.install import HOME, is_ready, python_of
from tests.engines.servers import Wanted, serving

pytestmark = [pytest.mark.engines, pytest.mark.timeout(2_400)]

HERE = Path(__file__).parent
ASK = {"model": MODEL, "messages": [{"role": "user", "content": "say hello"}]}


@pytest.fixture(scope="module", params=["vllm", "sglang"])
def server(models, request):
    """Both forbid blanks between the words of JSON: a random model would write nothing else."""
    need(request.param)
    if not is_ready("clients"):
        pytest.skip("no clients here: run `make engines`")
    blanks = {"--structured-outputs-config": '{"disable_any_whitespace":true,"backend":"xgrammar"}'}
    wanted = {
        "vllm": Wanted("vllm", "tiny", "bytes", MODEL, blanks),
        "sglang": Wanted(
            "sglang",
            "tiny",
            "bytes",
            MODEL,
            switches=("--constrained-json-disable-any-whitespace",),
        ),
    }
    with serving(models, wanted[request.param]) as (started,):
        yield {request.param: started}


async def said_by(server):
    """What the engine says when it is asked directly."""
    ask = ASK | {"temperature": 0, "max_tokens": 8}
    answer = await post(server.url, json.dumps(ask).encode())
    return answer.json()["choices"][0]["message"]["content"]


async def output_of(*command: object) -> str:
    """Of a program that must succeed."""
    process = await asyncio.create_subprocess_exec(
        *map(str, command), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    return out.decode()


async def test_every_python_client_gets_what_the_engine_says(server, gateway):
    (direct,) = server.values()
    said = await said_by(direct)
    gate = await gateway(server)
    printed = await output_of(python_of("clients"), HERE / "clients.py", gate.url, MODEL)
    found = json.loads(printed.splitlines()[-1])
    assert found == {
        "openai_chat": [said, 8],
        "openai_stream": [said, 8],
        "openai_completion": found["openai_completion"],
        "openai_responses": found["openai_responses"],
        "openai_leaving": 4,
        "openai_unknown_model": ["NotFoundError", "model_not_found"],
        "openai_models": [MODEL],
        "langchain": [said, said],
        "llama_index": [said, said],
        "litellm": [said, said],
        "instructor": "bool",
        "llm_cli": said,
    }
    assert found["openai_completion"] > 8
    assert 0 < found["openai_responses"] <= 8  # SGLang counts six


async def test_the_node_client_as_well(server, gateway):
    if shutil.which("node") is None or not (HOME / "clients" / "node").is_dir():
        pytest.skip("no node here")
    (direct,) = server.values()
    said = await said_by(direct)
    gate = await gateway(server)
    script = HOME / "clients" / "node" / "client.mjs"  # imports are looked up beside the script
    shutil.copy(HERE / "client.mjs", script)
    found = json.loads(await output_of("node", script, gate.url, MODEL))
    assert found == {
        "whole": said,
        "streamed": said,
        "unknown": "NotFoundError 404 model_not_found",
    }
