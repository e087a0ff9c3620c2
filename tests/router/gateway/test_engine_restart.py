"""An engine that starts anew has a cold prefix cache, and the policy is told so."""

from __future__ import annotations

import json

from router.domain.fleet import BackendSpec
from simulator.engine_server.build import EngineOptions
from simulator.engine_server.faults import Faults
from simulator.engine_server.fleet import make_server
from simulator.engine_server.listening import listen
from tests.fakes import ask
from tests.router.gateway.fakes import MODEL, eventually, fleet, running

LONG = "word " * 2_000


async def test_what_it_had_cached_is_forgotten() -> None:
    listener = listen("127.0.0.1", 0)
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    spec = BackendSpec("e0", "a100-80", "vllm", MODEL)
    server = make_server(spec, listener, EngineOptions(speed=50.0))
    await server.start()
    telemetry = {"enabled": True, "scrape_interval_s": 0.05, "explain_every_s": None}
    config = fleet(url, policy={"name": "motley"}) | {"telemetry": telemetry}
    body = json.dumps(
        {"model": MODEL, "messages": [{"role": "user", "content": LONG}], "max_tokens": 2}
    ).encode()
    try:
        async with running(config) as gate:
            dispatcher = gate.relay.engine.dispatcher
            policy, backend = dispatcher.policy, dispatcher.state.get("e0")
            requests = []
            gate.relay.engine.sent = lambda request, _: requests.append(request)
            answered = await gate.post(body=body, content_type="application/json")
            assert answered.status_code == 200
            again = ask("again", prompt_tokens=2_500, prefix_hashes=requests[0].prefix_hashes)
            again.prefix_block_tokens = requests[0].prefix_block_tokens
            assert policy.believed_cached(again, backend) > 1_000  # type: ignore[attr-defined]
            await eventually(lambda: backend.signals is not None)
            server.app.set_faults(Faults(kill=True, restart_after_s=0.7))
            await eventually(lambda: policy.believed_cached(again, backend) == 0)  # type: ignore[attr-defined]
            told = (await gate.get("/metrics")).text
            assert 'motley_engine_restarts_total{backend="e0"} 1.0' in told
    finally:
        await server.stop()
