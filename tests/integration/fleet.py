"""The demo's fleet in its own process, twenty times as fast, and a gateway in the test's loop."""

import asyncio
from contextlib import asynccontextmanager, contextmanager

import httpx
from openai import AsyncOpenAI

from router.cli.demo import DEMO_FLEET, MODEL
from router.cli.demo_file import with_urls
from router.config.load import load_config
from router.gateway.app import build_app
from router.gateway.server import bind, server, url_of
from simulator.engine_server.host import EngineHost

SPEED = 20.0
HELLO = [{"role": "user", "content": "hello"}]


@contextmanager
def engines(speed=SPEED):
    """The fleet's configuration with every URL, while its engines run."""
    config = load_config(DEMO_FLEET)
    with EngineHost(config.fleet.backends) as host:
        host.start(speed=speed)
        host.wait_until_ready()
        yield load_config(with_urls(DEMO_FLEET, list(host.urls.values())))


class Gateway:
    """A running gateway: its URL, its dispatcher, an SDK client."""

    def __init__(self, app, url):
        self.url, self.dispatcher = url, app.engine.dispatcher
        self.client = AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=30)

    async def ask(self, tokens, content="hello"):
        """Stream an answer; where it came from and what it said."""
        raw = await self.client.chat.completions.with_raw_response.create(
            model=MODEL,
            messages=[{"role": "user", "content": content}],
            stream=True,
            max_tokens=tokens,
            extra_body={"ignore_eos": True},
        )
        said = ""
        async for chunk in raw.parse():
            said += "".join(choice.delta.content or "" for choice in chunk.choices)
        return raw.headers["x-motley-backend"], said

    async def settled(self):
        """Wait until nothing is in flight (I2)."""
        async with asyncio.timeout(10):
            while self.dispatcher.in_flight or self.dispatcher.queued:
                await asyncio.sleep(0.005)


@asynccontextmanager
async def gateway(config):
    """A gateway in this loop, closed with everything it opened."""
    app = build_app(config)
    with bind("127.0.0.1", 0) as listener:
        web = server(app, drain_s=1.0)
        web.capture_signals = _no_signals
        serving = asyncio.create_task(web.serve(sockets=[listener]))
        while not web.started:
            await asyncio.sleep(0.005)
        running = Gateway(app, url_of(listener))
        try:
            async with running.client:
                yield running
        finally:
            web.should_exit = True
            await serving


@contextmanager
def _no_signals():
    yield


async def break_engine(config, name, **faults):
    """Give one engine faults."""
    url = next(spec.url for spec in config.fleet.backends if spec.name == name)
    async with httpx.AsyncClient() as client:
        assert (await client.post(f"{url}/fault", json=faults)).is_success
