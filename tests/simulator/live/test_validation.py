"""An emulated engine and its twin tell the same story, percentile by percentile."""

import asyncio
import json
from dataclasses import replace

import pytest

from router.domain.errors import WorkloadError
from router.perf.build import iteration_model
from router.perf.measured import MeasuredCost
from simulator.engine_server.build import EngineOptions
from simulator.live.document import Known, document
from simulator.live.probe import ProbeOptions
from simulator.live.session import Target, find
from simulator.live.setup import Named
from simulator.live.validation import ReplayPlan, measure_and_validate, validate
from simulator.live.workload import Scaling
from simulator.results import Status
from simulator.synthetic import builtin_trace
from simulator.traces.columns import Trace
from simulator.traces.record import TraceRecord

from .virtual import emulated, run_virtually, with_client

NETWORK_S = 0.003
PROBE = ProbeOptions(seconds=40.0, max_rounds=1)
TARGET = Target(Named("a100-80"))


def ignore(share, what):
    """Nobody watches."""


def true_cost(spec):
    """What the emulator was told, as a probe would have found it."""
    model = iteration_model(spec)
    return MeasuredCost(
        step_s=model.step_s,
        prefill_s=model.prefill_token_s,
        seq_s=model.seq_s,
        context_s=model.context_s,
        pair_s=model.pair_s,
        knee_tokens=model.weights_s / model.prefill_token_s,
        api_s=2 * NETWORK_S,
    )


COST = true_cost(emulated())


def plan(minutes=0.5, repeats=1, name="azure-code-like", **scaling):
    trace = builtin_trace(name, duration_s=900.0, seed=1)
    return ReplayPlan(trace, Scaling(minutes=minutes, **scaling), repeats)


def side_by_side(spec, replay, options=None):
    return run_virtually(
        with_client(
            spec,
            lambda client: measure_and_validate(client, TARGET, PROBE, replay, ignore),
            delay_s=NETWORK_S,
            options=options,
        )
    )


def with_cost(spec, replay, cost, options=None):
    async def use(client):
        setup = await find(client, TARGET)
        return setup, await validate(client, setup, cost, replay, ignore)

    return run_virtually(with_client(spec, use, delay_s=NETWORK_S, options=options))


@pytest.mark.parametrize("engine", ["vllm", "sglang"])
def test_with_the_emulators_own_truth_the_twin_is_exact(engine):
    spec = emulated("a100-80", engine)
    _, done = with_cost(spec, plan(load=0.9), true_cost(spec))
    assert len(done.trace) > 50
    assert max(abs(row.error_percent) for row in done.rows) < 1e-6


def test_with_a_fitted_iteration_it_tells_the_same_story():
    _, done = side_by_side(emulated(), plan(load=0.5, name="azure-conv-like"))
    for row in done.rows:
        # Fitted times differ by a hair, so that a prompt may catch an iteration in one world and
        # just miss it in the other: its first token moves by a whole iteration.
        assert abs(row.error_percent) < (6.0 if row.metric == "TTFT" else 2.0), row


def test_arrivals_and_lengths_are_the_traces_own():
    _, done = with_cost(emulated(), plan(), COST)
    (live,) = done.live
    assert list(live.result.records.output_tokens) == list(done.trace.output_tokens)
    assert list(done.twin.records.output_tokens) == list(done.trace.output_tokens)
    assert max(live.late_s) < 1e-6
    assert live.lengths_off == 0


def test_an_engine_that_does_not_change_differs_from_itself_in_nothing():
    _, done = side_by_side(emulated(), plan(minutes=0.2, repeats=2))
    assert done.drift_percent == pytest.approx(0.0, abs=1.0)
    assert all(row.spread_percent < 1e-6 for row in done.rows)


def test_a_wrong_calibration_shows():
    slow = replace(true_cost(emulated()), prefill_s=1e-3)
    _, done = with_cost(emulated(), plan(load=0.2), slow)
    assert done.drift_percent is None
    assert done.rows[0].error_percent > 100.0


def test_the_document_is_plain_json_and_complete():
    measured, done = side_by_side(emulated(), plan(minutes=0.2))
    text = json.dumps(document(Known(measured.setup, measured.fit.cost, measured.fit), done))
    found = json.loads(text)
    assert found["engine"]["name"] == "vllm"
    assert found["workload"]["requests"] == found["live"][0]["completed"]
    assert {row["quantile"] for row in found["rows"]} == {50.0, 90.0, 99.0}
    assert set(found["fit"]["intervals"]) < set(found["cost"])


def test_refused_requests_are_counted_and_said():
    # Ten at once, and no more than two queued.
    burst = Trace("burst").extend(TraceRecord(0.001 * i, 50, 5) for i in range(20))
    replay = ReplayPlan(burst, Scaling(rate_scale=1.0))
    spec = emulated(max_num_seqs=1)
    _, done = with_cost(spec, replay, true_cost(spec), EngineOptions(max_queued=2))
    result = done.live[0].result
    refused = result.count(Status.FAILED)
    assert refused > 0
    assert result.count(Status.COMPLETED) == 20 - refused
    assert f"{refused} request(s) failed live: status_503" in done.notes


def test_shared_prefixes_become_equal_tokens():
    sent = []

    class Watched:
        """Takes note of the prompts."""

        def __init__(self, app):
            self.app = app

        async def __call__(self, scope, receive, send):
            async def noting():
                message = await receive()
                if scope["path"] == "/v1/completions" and message.get("body"):
                    sent.append(json.loads(message["body"])["prompt"])
                return message

            await self.app(scope, noting, send)

    shared = Trace("chats")
    shared.append(TraceRecord(0.0, 40, 2, prefix_hashes=(11, 12), prefix_block_tokens=16))
    shared.append(TraceRecord(5.0, 50, 2, prefix_hashes=(11, 13), prefix_block_tokens=16))

    async def use(client):
        client._http._transport._app = Watched(client._http._transport._app)
        setup = await find(client, TARGET)
        await validate(client, setup, COST, ReplayPlan(shared, Scaling(rate_scale=1.0)), ignore)

    run_virtually(with_client(emulated(), use))
    first, second = sent
    assert (len(first), len(second)) == (40, 50)
    assert first[:16] == second[:16]
    assert first[16:32] != second[16:32]


def test_an_engine_that_dies_leaves_nothing_to_compare():
    async def use(client):
        setup = await find(client, TARGET)
        await client._http.post("/fault", json={"error_status": 500})
        return await validate(client, setup, COST, plan(minutes=0.2), ignore)

    with pytest.raises(WorkloadError, match="was everything refused"):
        run_virtually(with_client(emulated(), use))


def test_a_replay_can_be_interrupted():
    async def use(client):
        setup = await find(client, TARGET)
        task = asyncio.ensure_future(validate(client, setup, COST, plan(), ignore))
        await asyncio.sleep(10.0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.sleep(1.0)  # for the iterations in progress
        metrics = await client.page("/metrics")
        running = [line for line in metrics.splitlines() if b"num_requests_running{" in line]
        assert all(line.endswith(b" 0.0") for line in running)

    run_virtually(with_client(emulated(), use))
