"""Every secret is planted, everything is logged, and nothing of it is found anywhere."""

from __future__ import annotations

import io
import json
import logging
from pathlib import Path
from typing import Any

from router.cli.logs import log_formatter
from tests.router.gateway.conftest import StartEngine
from tests.router.gateway.fakes import MODEL, answer, chat, fleet, reset, running

CLIENT_KEY, ADMIN_KEY, ENGINE_KEY = "sk-client-7f3a", "sk-admin-55de", "sk-engine-c0de"
SECRETS = {
    "a client's key": CLIENT_KEY,
    "a wrong key": "sk-wrong-91bc",
    "an admin's key": ADMIN_KEY,
    "an engine's key": ENGINE_KEY,
    "a prompt": "prompt-of-the-user-42",
    "an answer": "answer-of-the-engine-43",
    "a tool's argument": "argument-44",
    "a password in a URL": "hunter2-45",
    "a cookie": "session-46",
}


async def test_no_secret_is_told(engine: StartEngine, tmp_path: Path) -> None:
    heard = io.StringIO()
    handlers = []
    for style in ("text", "json"):
        handler = logging.StreamHandler(heard)
        handler.setFormatter(log_formatter(style))
        handlers.append(handler)
    root = logging.getLogger()
    before = root.level
    root.setLevel(logging.DEBUG)
    for handler in handlers:
        root.addHandler(handler)
    try:
        told = await use_everything(engine, tmp_path)
    finally:
        root.setLevel(before)
        for handler in handlers:
            root.removeHandler(handler)
    kept = {
        str(f.relative_to(tmp_path)): f.read_bytes() for f in tmp_path.rglob("*") if f.is_file()
    }
    kept |= {name: text.encode() for name, text in told.items()}
    kept["the log"] = heard.getvalue().encode()
    assert kept["the log"]
    for what, secret in SECRETS.items():
        for where, content in kept.items():
            assert secret.encode() not in content, f"{what} is in {where}"


async def use_everything(engine: StartEngine, tmp_path: Path) -> dict[str, str]:
    """Right and wrong keys, failures of all kinds, every page that operators read."""
    leak = {"error": {"message": f"Invalid key {ENGINE_KEY}"}}
    backends = [
        await engine(chat(SECRETS["an answer"])),
        await engine(answer(401, leak)),
        await engine(reset),
    ]
    key_file = tmp_path.parent / f"{tmp_path.name}-key"
    key_file.write_text(ENGINE_KEY)
    config: dict[str, Any] = fleet(
        *backends,
        server={
            "api_keys": [CLIENT_KEY],
            "access_log": True,
            "decision_log": str(tmp_path / "log.jsonl"),
        },
        admin={"api_keys": [ADMIN_KEY]},
        upstream={"api_key_file": str(key_file)},
        telemetry={"enabled": False, "record": {"directory": str(tmp_path / "record")}},
    )
    messages = [{"role": "user", "content": SECRETS["a prompt"]}]
    tools = [{"type": "function", "function": {"name": "f", "x": SECRETS["a tool's argument"]}}]
    body = json.dumps({"model": MODEL, "messages": messages, "tools": tools}).encode()
    told: dict[str, str] = {}
    async with running(config) as gate:
        client = {"authorization": f"Bearer {CLIENT_KEY}"}
        cookie = {"cookie": f"s={SECRETS['a cookie']}", "x_motley_explain": "1"}
        for n in range(9):
            got = await gate.post(body=body, x_request_id=f"r{n}", **client, **cookie)
            if got.status_code != 200:
                told[f"answer {n}"] = got.text
            told[f"headers {n}"] = str(got.headers)
        await gate.post(body=body, authorization=f"Bearer {SECRETS['a wrong key']}")
        await gate.post(body=body[:-4], **client)
        admin = {"authorization": f"Bearer {ADMIN_KEY}"}
        async with gate.client(**admin) as operator:
            url = f"http://u:{SECRETS['a password in a URL']}@127.0.0.1:9"
            entry = {"gpu": "l4", "model": MODEL, "url": url, "name": "w"}
            await operator.post("/workers", json=entry)
            for path in ("config", "fleet", "queue", "signals", "beliefs", "costs"):
                told[path] = (await operator.get(f"/debug/{path}")).text
            told["decision"] = (await operator.get("/debug/decisions/r0")).text
            told["workers"] = (await operator.get("/workers")).text
            told["metrics"] = (await operator.get("/metrics")).text
            told["state"] = (await operator.get("/dashboard/state")).text
    return told
