"""A light open-loop load, so that an emulated fleet is busy: chats of all sizes, Poisson arrivals.

Arrivals never wait for answers: a slow fleet gets no mercy, as with real users.
"""

from __future__ import annotations

import asyncio
import math
from random import Random
from urllib.parse import urlsplit

from msgspec import json

from simulator.engine_server.plan import LoadPlan
from simulator.engine_server.tokens import BYTES_PER_TOKEN

MAX_OPEN = 256
"""Open requests above which arrivals are dropped: files and patience are finite."""
_MEDIAN_PROMPT_TOKENS, _SIGMA, _MAX_PROMPT_TOKENS = 600, 1.0, 4_000
_READ_BYTES = 65_536


async def run_load(plan: LoadPlan) -> None:
    """Send requests until cancelled; what comes back is read and thrown away."""
    rng = Random(plan.seed)
    open_requests: set[asyncio.Task[None]] = set()
    try:
        while True:
            await asyncio.sleep(rng.expovariate(plan.rate_per_s))
            body = chat_body(plan, rng)
            if len(open_requests) < MAX_OPEN:
                task = asyncio.create_task(_ask(plan.url, body))
                open_requests.add(task)
                task.add_done_callback(open_requests.discard)
    finally:
        for task in open_requests:
            task.cancel()
        await asyncio.gather(*open_requests, return_exceptions=True)


def chat_body(plan: LoadPlan, rng: Random) -> bytes:
    """A streamed chat with a prompt of log-normal length (median 600 tokens, at most 4000)."""
    tokens = math.exp(rng.gauss(math.log(_MEDIAN_PROMPT_TOKENS), _SIGMA))
    length = BYTES_PER_TOKEN * min(_MAX_PROMPT_TOKENS, max(1, round(tokens)))
    start = f"{rng.getrandbits(64):016x} "
    content = (start + "motley " * (length // 7 + 1))[:length]
    body = {"model": plan.model, "stream": True, "messages": [{"role": "user", "content": content}]}
    return json.encode(body)


async def _ask(url: str, body: bytes) -> None:
    """One request on a connection of its own. No HTTP client: the load must stay cheap."""
    parts = urlsplit(url)
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: {parts.netloc}\r\nconnection: close\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    try:
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    except OSError:
        return  # not up yet, or gone: the next one tries again
    try:
        writer.write(head.encode() + body)
        while await reader.read(_READ_BYTES):
            pass
    except OSError:
        pass  # cut by a fault somebody injected
    finally:
        writer.close()
