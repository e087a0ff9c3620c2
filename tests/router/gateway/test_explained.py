"""Decisions told over HTTP: in a header for who asks, and at ``/debug/decisions``."""

from __future__ import annotations

from tests.router.gateway.conftest import StartEngine, StartGateway
from tests.router.gateway.fakes import stream


async def test_who_asks_is_told_in_a_header_and_may_look_it_up(
    engine: StartEngine, gateway: StartGateway
) -> None:
    gate = await gateway(
        await engine(stream(["a", "b"])),
        await engine(stream(["a"])),
        telemetry={"explain_every_s": None},
    )
    plain = await gate.post()
    assert "x-motley-explain" not in plain.headers
    asked = await gate.post(x_motley_explain="1", x_request_id="mine-1")
    told = asked.headers["x-motley-explain"]
    assert told.startswith(f"assign;waited_s=0.000;queued=0;candidates=2, {chosen(asked.headers)};")

    looked_up = (await gate.get("/debug/decisions/mine-1")).json()
    assert looked_up["backend"] == chosen(asked.headers)
    assert looked_up["actual"]["status"] == "completed"
    assert looked_up["candidates"][1]["lost_because"]
    listed = (await gate.get("/debug/decisions")).json()["decisions"]
    assert [entry["request_id"] for entry in listed] == ["mine-1"]

    missing = await gate.get("/debug/decisions/unheard-of")
    assert missing.status_code == 404
    assert "x-motley-explain: 1" in missing.json()["error"]["message"]


async def test_one_decision_a_second_is_kept_without_being_asked_for(
    engine: StartEngine, gateway: StartGateway
) -> None:
    gate = await gateway(await engine(stream(["a"])), telemetry={"explain_every_s": 60.0})
    for n in range(5):
        answered = await gate.post(x_request_id=f"r{n}")
        assert "x-motley-explain" not in answered.headers
    listed = (await gate.get("/debug/decisions")).json()["decisions"]
    assert [entry["request_id"] for entry in listed] == ["r0"]


def chosen(headers: object) -> str:
    return str(dict(headers)["x-motley-backend"])  # type: ignore[call-overload]
