"""``motley engine``: one emulated engine behind HTTP."""

from __future__ import annotations

import asyncio
import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from router.domain.errors import MotleyError

if TYPE_CHECKING:
    from router.domain.fleet import BackendSpec
    from simulator.engine_server.build import EngineOptions

EngineChoice = Literal["vllm", "sglang"]


class EngineKilledError(MotleyError):
    """The kill fault ended the engine, as a crash would."""


@dataclass(frozen=True, slots=True)
class Listen:
    """Where to listen."""

    host: str
    port: int


def engine(
    gpu: Annotated[str, typer.Option(help="GPU of the catalogue, such as a100-80 or t4.")],
    model: Annotated[str, typer.Option(help="Model of the catalogue.")] = "llama-3.1-8b",
    engine: Annotated[EngineChoice, typer.Option(help="Which engine to look like.")] = "vllm",
    tensor_parallel: Annotated[int, typer.Option(min=1, help="Cards that form the engine.")] = 1,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 picks a free one.")] = 8100,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    speed: Annotated[float, typer.Option(min=0.001, help="Emulated seconds per second.")] = 1.0,
    seed: Annotated[int, typer.Option(min=0, help="Seed of answer lengths and ids.")] = 0,
    engine_version: Annotated[str, typer.Option(help="Such as 0.18.1; newest if empty.")] = "",
    quantization: Annotated[
        str, typer.Option(help="Weight format; the model's own if empty.")
    ] = "",
    max_model_len: Annotated[int | None, typer.Option(min=1, help="Context limit.")] = None,
    max_num_seqs: Annotated[int | None, typer.Option(min=1, help="Most running requests.")] = None,
    kv_capacity_tokens: Annotated[int | None, typer.Option(min=1, help="KV cache size.")] = None,
    max_queued: Annotated[
        int | None, typer.Option(min=0, help="Waiting requests above which it answers 503.")
    ] = None,
    median_output_tokens: Annotated[
        float, typer.Option(min=1, help="Median length of answers that nothing cuts.")
    ] = 128.0,
) -> None:
    """Emulate one inference engine: [bold]vLLM or SGLang without a GPU[/bold].

    It batches, prefills, pages and preempts as that engine would on that GPU, in real time, and
    has the engine's own endpoints: OpenAI completions (streamed or not), [bold]/metrics /health
    /v1/models /tokenize[/bold], SGLang's [bold]/v1/loads /get_server_info /slow_down[/bold],
    vLLM's [bold]/version /load[/bold]. Answers are the words w0 w1 w2..., so that a client can
    check that every token came.

    Faults on request: [bold]curl -d '{"slow_factor": 3}' localhost:8100/fault[/bold]; also hang,
    error_status, cut_after_tokens, kill, restart_after_s.

    Example: [bold]motley engine --gpu v100-32 --port 8101[/bold]
    """
    from router.domain.fleet import BackendSpec
    from simulator.engine_server.build import EngineOptions
    from simulator.engine_server.loops import run
    from simulator.engine_server.tokens import LengthRule

    spec = BackendSpec(
        name=f"{gpu}-0",
        gpu=gpu,
        engine=engine,
        model=model,
        tensor_parallel=tensor_parallel,
        engine_version=engine_version,
        quantization=quantization,
        max_model_len=max_model_len,
        max_num_seqs=max_num_seqs,
        kv_capacity_tokens=kv_capacity_tokens,
    )
    options = EngineOptions(
        speed=speed,
        seed=seed,
        max_queued=max_queued,
        lengths=LengthRule(median_tokens=median_output_tokens),
    )
    if run(_serve(spec, options, Listen(host, port))):
        raise EngineKilledError("the engine was killed by /fault.")


async def _serve(spec: BackendSpec, options: EngineOptions, where: Listen) -> bool:
    """Serve until interrupted; whether it was killed instead."""
    from simulator.engine_server.fleet import make_server
    from simulator.engine_server.listening import listen, url_of

    listener = listen(where.host, where.port)
    server = make_server(spec, listener, options)
    facts, dialect = server.app.facts, server.app.dialect
    cards = f"{spec.tensor_parallel} x {spec.gpu}" if spec.tensor_parallel > 1 else spec.gpu
    interrupted = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, interrupted.set)
    await server.start()
    typer.echo(
        f"{dialect.engine} {dialect.version} (emulated) serves {facts.model} on {cards} at "
        f"{url_of(listener)}: KV {facts.kv_capacity_tokens:,} tokens, context "
        f"{facts.max_model_len:,}. Ctrl-C stops it."
    )
    waits = [asyncio.create_task(event.wait()) for event in (interrupted, server.gone)]
    await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    for wait in waits:
        wait.cancel()
    await server.stop()
    return server.gone.is_set()
