"""An open-loop load, so that an emulated fleet is busy: chats of all sizes.

Arrivals never wait for answers: a slow fleet gets no mercy, as with real users.
"""

from __future__ import annotations

import asyncio
from random import Random
from urllib.parse import urlsplit

from msgspec import json

from simulator.engine_server.plan import LoadPlan
from simulator.engine_server.profiles import Arrival, arrivals
from simulator.engine_server.tokens import BYTES_PER_TOKEN

MAX_OPEN = 256
"""Open requests above which arrivals are dropped: files and patience are finite."""
READY_EVERY_S = 0.2
_READ_BYTES = 65_536


async def run_load(plan: LoadPlan) -> None:
    """Send requests until cancelled; what comes back is read and thrown away."""
    rng = Random(plan.seed)
    open_requests: set[asyncio.Task[None]] = set()
    clock = asyncio.get_running_loop().time
    # Who is not up yet would let everybody wait, and serve them all at once.
    while not await _is_ready(plan.url):
        await asyncio.sleep(READY_EVERY_S)
    begin_s = clock()
    try:
        for arrival in arrivals(plan.profile, plan.rate_per_s, plan.seed):
            await asyncio.sleep(max(0.0, begin_s + arrival.at_s - clock()))
            body = chat_body(plan, arrival, rng)
            if len(open_requests) < MAX_OPEN:
                task = asyncio.create_task(_ask(plan.url, body))
                open_requests.add(task)
                task.add_done_callback(open_requests.discard)
    finally:
        for task in open_requests:
            task.cancel()
        await asyncio.gather(*open_requests, return_exceptions=True)


def chat_body(plan: LoadPlan, arrival: Arrival, rng: Random) -> bytes:
    """A streamed chat with a prompt of the arrival's length that no other begins like."""
    length = BYTES_PER_TOKEN * arrival.prompt_tokens
    start = f"{rng.getrandbits(64):016x} "
    content = (start + "motley " * (length // 7 + 1))[:length]
    body: dict[str, object] = {"model": plan.model, "stream": True}
    body["messages"] = [{"role": "user", "content": content}]
    if arrival.output_tokens is not None:
        body |= {"max_tokens": arrival.output_tokens, "ignore_eos": True}
    return json.encode(body)


async def _is_ready(url: str) -> bool:
    """Whether the gateway answers that it can serve."""
    parts = urlsplit(url)
    try:
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    except OSError:
        return False
    try:
        head = f"GET /ready HTTP/1.1\r\nhost: {parts.netloc}\r\nconnection: close\r\n\r\n"
        writer.write(head.encode())
        return b" 200 " in await reader.readline()
    except OSError:
        return False
    finally:
        writer.close()


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
