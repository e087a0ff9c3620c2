"""The HTTP server of a real engine: the protocol without a model, and the model where it is."""

from __future__ import annotations

import asyncio
import multiprocessing
import random
import threading
import time
from contextlib import asynccontextmanager

import httpx
import numpy as np
import pytest

from benchmarks.gpu import fit_iterations
from benchmarks.gpu.drive import Asked, closed_loop, open_loop
from benchmarks.gpu.mixed_plan import Slice, summary
from benchmarks.gpu.serve import serve
from benchmarks.gpu.words import Cancel, CoreOptions, Gained, Log, Ready, Stop, Submit, TakeLog
from router.perf.measured import MeasuredCost
from simulator.engine_server.listening import listen, url_of
from telemetry.engine_metrics import read

MODEL = "llama-3.1-8b"
OPTIONS = CoreOptions("tiny", "cpu", max_seqs=8, seat_tokens=1024, chunk_tokens=128)


class Core(threading.Thread):
    """In the place of the engine's process: a token each for everybody every few milliseconds."""

    def __init__(self, connection) -> None:
        super().__init__(daemon=True)
        self.connection, self.left, self.heard = connection, {}, []

    def run(self) -> None:
        self.connection.send(Ready(7, 0.0))
        rows = []
        while True:
            while self.connection.poll(0 if self.left else None):
                word = self.connection.recv()
                self.heard.append(word)
                if isinstance(word, Submit):
                    self.left[word.name] = word.output_tokens
                elif isinstance(word, Cancel):
                    self.left.pop(word.name, None)
                elif isinstance(word, TakeLog):
                    self.connection.send(Log(rows))
                    rows = []
                else:
                    self.connection.close()
                    return
            time.sleep(0.003)
            names = list(self.left)
            rows.append((time.monotonic(), 0.003, 0, len(names), 100, 0.0))
            self.left = {name: left - 1 for name, left in self.left.items() if left > 1}
            self.connection.send(Gained(names, len(self.left), 0, 64 * len(self.left)))


@asynccontextmanager
async def serving():
    """The server's URL, and the engine that it believes in."""
    ours, theirs = multiprocessing.Pipe()
    core, listener, ended = Core(theirs), listen("127.0.0.1", 0), asyncio.Event()
    core.start()
    task = asyncio.create_task(serve(listener, ours, MODEL, OPTIONS, ended))
    url = url_of(listener)
    try:
        async with httpx.AsyncClient(base_url=url) as http:
            yield http, url, core
    finally:
        ours.send(Stop())
        await asyncio.wait_for(task, 5)
        core.join(5)


async def test_an_answer_is_as_long_as_its_seed_says_and_max_tokens_cuts():
    async with serving() as (http, url, _):
        assert (await http.get("/health")).status_code == 200
        (listed,) = (await http.get("/v1/models")).json()["data"]
        assert (listed["id"], listed["max_model_len"]) == (MODEL, 1024)
        asked = [Asked(0.0, 50, 5), Asked(0.01, 200, 1), Asked(0.02, 50, 40)]
        samples = await open_loop(url, MODEL, asked, give_up_s=10.0)
        assert [s.error for s in samples] == ["", "", ""]
        assert [s.output_tokens for s in samples] == [5, 1, 40]
        assert [s.input_tokens for s in samples] == [50, 200, 50]
        body = {"model": MODEL, "seed": 40, "max_tokens": 6}
        body |= {"messages": [{"role": "user", "content": "hi"}]}
        answer = (await http.post("/v1/chat/completions", json=body)).json()
        assert answer["choices"][0]["message"]["content"] == "w0 w1 w2 w3 w4 w5"
        assert answer["choices"][0]["finish_reason"] == "length"


async def test_who_leaves_is_taken_out_of_the_engine():
    async with serving() as (_, url, core):
        samples = await open_loop(url, MODEL, [Asked(0.0, 50, 500)], give_up_s=0.8)
        assert samples[0].error == "unfinished"
        assert samples[0].first_s is not None
        for _ in range(100):
            await asyncio.sleep(0.01)
            if any(isinstance(word, Cancel) for word in core.heard):
                break
        assert Cancel("1") in core.heard
        run = summary("motley", 0.5, samples, samples[0].sent_s + 0.8, ["fast"])
        assert (run["e2e_ms"], run["ended"], run["failed"]) == ([800], "0", ["unfinished"])
        assert 0.0 < run["ttft_ms"][0] < 800.0


async def test_a_router_reads_the_load_off_the_metrics_and_only_we_the_iterations():
    async with serving() as (http, url, _):
        load = closed_loop(url, MODEL, [Asked(0.0, 50, 500)], users=3, seconds=60.0)
        busy = asyncio.create_task(load)
        for _ in range(200):
            await asyncio.sleep(0.02)
            signals = read((await http.get("/metrics")).text, "vllm", 0.0).signals
            if signals.running == 3:
                break
        assert (signals.running, signals.waiting) == (3, 0)
        assert signals.kv_capacity_tokens == 8 * 1024
        busy.cancel()
        await asyncio.wait([busy])
        told = (await http.get("/iterations")).json()
        assert told["processors"] == 7
        assert len(told["rows"]) > 1
        assert max(row[3] for row in told["rows"]) == 3
        assert (await http.get("/iterations")).json()["rows"] == []


def test_a_cost_is_found_again_from_iterations():
    truth = MeasuredCost(0.004, 5e-5, 1e-5, 4e-8, 1e-9, 80.0)
    rng = random.Random(0)
    rows = []
    for _ in range(400):
        prompt, seqs = rng.choice((0, 0, 100, 900, 2000)), rng.randrange(1, 90)
        work = (prompt, seqs, seqs * rng.randrange(100, 2000), prompt * prompt / 2)
        time_s = truth.iteration_model().iteration_s(*work)
        rows.append((0.0, time_s * rng.uniform(0.98, 1.02), *work))
    found = fit_iterations.fit(rows)
    assert np.median(np.abs(fit_iterations.errors(found, rows))) < 0.015
    slower = fit_iterations.errors(fit_iterations.scaled(found, 1.5), rows)
    assert np.median(slower) == pytest.approx(0.5, abs=0.03)


def test_a_slice_keeps_the_bunching_and_has_the_rate_it_is_asked_for():
    class Rows:
        arrival_s = (0.0, 1.0, 1.5, 4.0, 5.0)
        input_tokens = (10, 400, 4000, 100, 100)
        output_tokens = (100, 1, 4000, 9, 9)

    cut = Slice(1, 0.5, 1500, 500)
    asked = cut.asked(Rows, 3, per_s=30.0)
    assert [one.at_s for one in asked] == pytest.approx([0.0, 0.0125, 0.075])
    assert [(one.prompt_tokens, one.output_tokens) for one in asked] == [
        (200, 2),
        (1500, 500),
        (50, 4),
    ]


def test_the_engine_computes_what_the_model_is():
    torch = pytest.importorskip("torch", reason="PyTorch is not among what `make test` installs")
    from benchmarks.gpu import check
    from benchmarks.gpu.shapes import Shape

    torch.set_num_threads(1)
    shape = {"tiny": Shape("tiny", 2, 64, 4, 2, 16, 128, 256)}
    found = check.errors("cpu", torch.float32, shape)
    assert len(found) == 3
    assert max(found.values()) < 1e-5


def test_a_batch_serves_everybody_whole_and_forgets_who_left():
    pytest.importorskip("torch", reason="PyTorch is not among what `make test` installs")
    from benchmarks.gpu.batching import Run
    from benchmarks.gpu.core import _batch

    batch = _batch(OPTIONS)
    runs = [Run(prompt, output) for prompt, output in ((300, 3), (20, 9), (90, 1), (5, 20))]
    runs += [Run(30, 4) for _ in range(9)]
    for run in runs:
        batch.submit(run)
    prefilled = steps = 0
    while not batch.idle:
        work, _ = batch.iterate()
        prefilled, steps = prefilled + work.prefill_tokens, steps + 1
        assert work.prefill_tokens + work.decode_seqs <= OPTIONS.chunk_tokens
        if steps == 6:
            batch.cancel(runs[3])
    assert [run.emitted for run in runs if run is not runs[3]] == [3, 9, 1, *[4] * 9]
    assert 0 < runs[3].emitted < 20
    assert prefilled == sum(run.prompt_tokens for run in runs)
    assert batch.held_tokens == 0
