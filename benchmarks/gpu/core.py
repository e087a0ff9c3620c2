"""The process in which one engine computes: asked and answering over a pipe, logging iterations.

It is a process of its own, as vLLM's engine core is, so that HTTP never holds up a launch. How
much of the card it gets is not its business: under CUDA MPS its environment says so.
"""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import astuple
from multiprocessing.connection import Connection

import torch

from benchmarks.gpu.batching import Batch, Run
from benchmarks.gpu.llama import Engine
from benchmarks.gpu.shapes import PAGE_TOKENS, SHAPES
from benchmarks.gpu.words import Cancel, CoreOptions, Gained, Log, Ready, Stop, Submit

GRAPH_SIZES = (1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)
"""Above, the host is ahead of the card anyway."""


def serve(connection: Connection, options: CoreOptions) -> None:
    """Compute what is asked until told to stop, or the other side has gone."""
    start_s = time.monotonic()
    batch = _batch(options)
    connection.send(Ready(batch.engine.processors, time.monotonic() - start_s))
    # Until whoever asks has gone.
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):
        _loop(connection, batch, options.pause_s)


def _batch(options: CoreOptions) -> Batch:
    cuda = options.device == "cuda"
    engine = Engine(
        SHAPES[options.shape],
        cache_tokens=options.cache_tokens + PAGE_TOKENS,
        max_seqs=options.max_seqs,
        max_tokens=options.chunk_tokens + options.max_seqs,
        max_context=options.seat_tokens,
        device=options.device,
        dtype=torch.bfloat16 if cuda else torch.float32,
        graph_sizes=GRAPH_SIZES,
    )
    if cuda:
        engine.warm_up()
    else:
        torch.set_num_threads(1)
    return Batch(
        engine,
        seat_tokens=options.seat_tokens,
        max_seqs=options.max_seqs,
        chunk_tokens=options.chunk_tokens,
    )


def _loop(connection: Connection, batch: Batch, pause_s: float) -> None:
    runs: dict[str, Run] = {}
    log: list[tuple[float, ...]] = []
    while True:
        while connection.poll(None if batch.idle else 0):
            word = connection.recv()
            if isinstance(word, Submit):
                run = Run(word.prompt_tokens, word.output_tokens, word.name)
                runs[word.name] = run
                batch.submit(run)
            elif isinstance(word, Cancel):
                if (gone := runs.pop(word.name, None)) is not None:
                    batch.cancel(gone)
            elif isinstance(word, Stop):
                return
            else:
                connection.send(Log(log))
                log = []
        start_s = time.monotonic()
        work, gained = batch.iterate()
        if pause_s:
            time.sleep(pause_s)
        log.append((start_s, time.monotonic() - start_s, *astuple(work)))
        for run in gained:
            if run.ended:
                del runs[run.name]
        running = len(batch.prompts) + len(batch.decoding)
        names = [run.name for run in gained]
        connection.send(Gained(names, running, len(batch.waiting), batch.held_tokens))
