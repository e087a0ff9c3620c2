"""Every client library asks the gateway what its users would: ``python clients.py URL MODEL``.

Runs in the environment of the clients. Prints one JSON object: per client, what it got, or
``{"error": ...}``. The caller knows what is right.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

TOKENS = 8
URL, MODEL = sys.argv[1], sys.argv[2]
BASE = f"{URL}/v1"
HELLO: list[Any] = [{"role": "user", "content": "say hello"}]
SAME = {"temperature": 0.0, "max_tokens": TOKENS}


def openai_chat() -> Any:
    from openai import OpenAI

    with OpenAI(base_url=BASE, api_key="none") as client:
        answer = client.chat.completions.create(model=MODEL, messages=HELLO, **SAME)
    assert answer.usage is not None
    return answer.choices[0].message.content, answer.usage.completion_tokens


def openai_stream() -> Any:
    from openai import OpenAI

    with OpenAI(base_url=BASE, api_key="none") as client:
        chunks = list(
            client.chat.completions.create(
                model=MODEL,
                messages=HELLO,
                stream=True,
                stream_options={"include_usage": True},
                **SAME,
            )
        )
    said = "".join(c.delta.content or "" for chunk in chunks for c in chunk.choices)
    return said, chunks[-1].usage.completion_tokens


def openai_completion() -> Any:
    from openai import OpenAI

    with OpenAI(base_url=BASE, api_key="none") as client:
        return client.completions.create(model=MODEL, prompt="say hello", **SAME).usage.total_tokens


def openai_responses() -> Any:
    from openai import OpenAI

    with OpenAI(base_url=BASE, api_key="none") as client:
        answer = client.responses.create(
            model=MODEL, input="say hello", max_output_tokens=TOKENS, temperature=0.0
        )
    return answer.usage.output_tokens


def openai_leaving() -> Any:
    from openai import AsyncOpenAI

    async def leave() -> int:
        async with AsyncOpenAI(base_url=BASE, api_key="none") as client:
            stream = await client.chat.completions.create(
                model=MODEL, messages=HELLO, max_tokens=2_000, stream=True
            )
            seen = 0
            async for _ in stream:
                seen += 1
                if seen == 4:
                    break
            await stream.close()
            return seen

    return asyncio.run(leave())


def openai_unknown_model() -> Any:
    import openai

    with openai.OpenAI(base_url=BASE, api_key="none", max_retries=0) as client:
        try:
            client.chat.completions.create(model="gpt-5", messages=HELLO)
        except openai.NotFoundError as error:
            return type(error).__name__, error.code
    return "accepted"


def openai_models() -> Any:
    from openai import OpenAI

    with OpenAI(base_url=BASE, api_key="none") as client:
        return [model.id for model in client.models.list()]


def langchain() -> Any:
    from langchain_openai import ChatOpenAI

    model = ChatOpenAI(base_url=BASE, api_key="none", model=MODEL, **SAME)
    whole = model.invoke("say hello").content
    return whole, "".join(part.content for part in model.stream("say hello"))


def llama_index() -> Any:
    from llama_index.llms.openai_like import OpenAILike

    model = OpenAILike(
        api_base=BASE,
        api_key="none",
        model=MODEL,
        is_chat_model=True,
        context_window=4_096,
        **SAME,
    )
    whole = model.complete("say hello").text
    return whole, "".join(part.delta or "" for part in model.stream_complete("say hello"))


def litellm() -> Any:
    import litellm as library

    library.suppress_debug_info = True
    ask = {"model": f"openai/{MODEL}", "api_base": BASE, "api_key": "none", "messages": HELLO}
    whole = library.completion(**ask, **SAME).choices[0].message.content
    parts = library.completion(**ask, **SAME, stream=True)
    return whole, "".join(part.choices[0].delta.content or "" for part in parts)


def instructor() -> Any:
    import instructor as library
    from openai import OpenAI
    from pydantic import BaseModel

    class Verdict(BaseModel):
        good: bool

    with OpenAI(base_url=BASE, api_key="none") as client:
        wrapped = library.from_openai(client, mode=library.Mode.JSON_SCHEMA)
        answer = wrapped.chat.completions.create(
            model=MODEL,
            response_model=Verdict,
            messages=HELLO,
            max_tokens=200,
            temperature=0,
            max_retries=0,
        )
    return type(answer.good).__name__


def llm_cli() -> Any:
    with tempfile.TemporaryDirectory() as home:
        entry = (
            f"- {{model_id: motley, model_name: {MODEL}, api_base: '{BASE}', api_key_name: none}}"
        )
        (Path(home) / "extra-openai-models.yaml").write_text(entry + "\n")
        command = [str(Path(sys.executable).parent / "llm"), "-m", "motley", "--no-log"]
        command += ["-o", "temperature", "0", "-o", "max_tokens", str(TOKENS), "say hello"]
        done = subprocess.run(
            command,
            env=os.environ | {"LLM_USER_PATH": home, "OPENAI_API_KEY": "none"},
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        )
    return done.stdout.removesuffix("\n")


CLIENTS: list[Callable[[], Any]] = [
    openai_chat,
    openai_stream,
    openai_completion,
    openai_responses,
    openai_leaving,
    openai_unknown_model,
    openai_models,
    langchain,
    llama_index,
    litellm,
    instructor,
    llm_cli,
]


def main() -> None:
    found: dict[str, Any] = {}
    for client in CLIENTS:
        try:
            found[client.__name__] = client()
        except Exception as error:  # noqa: BLE001 - whatever a library raises is its verdict
            found[client.__name__] = {"error": f"{type(error).__name__}: {error}"[:500]}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
