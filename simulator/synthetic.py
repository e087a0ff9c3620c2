"""Built-in workloads, so that nothing needs a download.

``azure-conv-like`` and ``azure-code-like`` are drawn from the statistics of the Azure LLM
inference traces of 2023 (CC-BY-4.0; Patel et al., "Splitwise", ISCA 2024): quantiles of the
lengths, and arrivals whose index of dispersion matches at 1, 10 and 60 s. Lengths are drawn
independently of each other (rank correlation in the traces: 0.07 and -0.02).
``chat-prefix-like`` is made up: multi-turn chats behind shared system prompts, to exercise
prefix caches; its numbers are assumptions, written out in ``ChatShape``.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from router.domain.errors import TraceError, UnknownNameError
from simulator.traces.columns import Floats, Trace
from simulator.traces.parsing import chain
from simulator.traces.record import TraceRecord

_PERCENT = (0, 0.1, 1, 5, 10, 25, 50, 75, 90, 95, 98, 99, 99.5, 99.9, 100)


@dataclass(frozen=True, slots=True)
class Lengths:
    """A distribution of token counts, log-linear between the percentiles in ``_PERCENT``."""

    tokens: tuple[float, ...]

    def draw(self, count: int, rng: np.random.Generator) -> list[int]:
        """Draw token counts."""
        logs = np.log(np.array(self.tokens, dtype=np.float64))
        drawn = np.exp(np.interp(rng.uniform(0.0, 100.0, count), _PERCENT, logs))
        return [max(1, round(value)) for value in drawn.tolist()]


@dataclass(frozen=True, slots=True)
class Modulation:
    """One layer of burstiness on a rate: independent gamma factors of mean 1.

    Attributes:
        window_s: how long a factor holds, in whole seconds.
        variance: of the factor.
    """

    window_s: int
    variance: float


@dataclass(frozen=True, slots=True)
class OnOff:
    """One layer of burstiness on a rate: exponential bursts and silences (mean seconds)."""

    on_s: float
    off_s: float


@dataclass(frozen=True, slots=True)
class Shape:
    """A service: its lengths, and its arrivals as a Cox process with a rate per second.

    Attributes:
        inputs, outputs: token counts.
        rate_per_s: mean.
        profile: relative rate at equal steps over an hour, interpolated, repeated.
        layers: multiplied onto the rate.
    """

    inputs: Lengths
    outputs: Lengths
    rate_per_s: float
    profile: tuple[float, ...] = (1.0,)
    layers: tuple[Modulation | OnOff, ...] = ()


AZURE_CONV = Shape(
    inputs=Lengths(
        (2, 8, 29, 181, 207, 396, 1020, 1189, 2734, 4083, 4098, 4142, 4831, 6179, 14050)
    ),
    outputs=Lengths((7, 12, 16, 41, 54, 85, 129, 395, 424, 451, 540, 601, 643, 954, 1000)),
    rate_per_s=5.53,
    profile=(4.78, 5.20, 6.87, 6.78, 5.21, 4.50),
    layers=(Modulation(120, 0.015), Modulation(10, 0.01), Modulation(1, 0.03)),
)
AZURE_CODE = Shape(
    inputs=Lengths((3, 7, 17, 75, 147, 578, 1469, 2744, 5188, 7303, 7436, 7436, 7436, 7437, 7437)),
    outputs=Lengths((6, 6, 6, 6, 7, 9, 13, 24, 55, 90, 171, 251, 359, 825, 1899)),
    rate_per_s=2.57,
    layers=(OnOff(66.0, 53.0), OnOff(7.3, 13.7), Modulation(1, 0.2)),
)


@dataclass(frozen=True, slots=True)
class ChatShape:
    """Multi-turn chats: assumptions, not measurements.

    Attributes:
        rate_per_s: mean turns per second, once the first chats have grown.
        mean_turns: turns of a chat, geometric.
        think_median_s: from the end of an answer to the next question, log-normal.
        seconds_per_token: how long a user is assumed to wait for an answer (open loop).
        message_median_tokens: a user's message, log-normal with ``message_sigma``.
        system_prompt_tokens: length of each service's prompt; the first is the most used.
        most_context_tokens: a chat ends before its prompt grows longer.
        block_tokens: granularity of the prefix hashes.
    """

    rate_per_s: float = 4.0
    mean_turns: float = 4.0
    think_median_s: float = 20.0
    think_sigma: float = 1.0
    seconds_per_token: float = 0.04
    message_median_tokens: float = 80.0
    message_sigma: float = 1.2
    system_prompt_tokens: tuple[int, ...] = (1536, 768, 2048, 384, 1024, 512)
    most_context_tokens: int = 12_000
    block_tokens: int = 64


def builtin_names() -> list[str]:
    """Names that can stand in place of a trace file."""
    return sorted(_BUILTIN)


def is_builtin(name: str) -> bool:
    """Whether a name is a built-in workload rather than a file."""
    return name in _BUILTIN


def builtin_trace(name: str, *, duration_s: float = 3600.0, seed: int = 0) -> Trace:
    """Generate a built-in workload.

    Args:
        name: one of ``builtin_names()``.
        duration_s: length in seconds.
        seed: same seed, same trace (I5).

    Raises:
        UnknownNameError: no such workload.
        TraceError: the duration is not positive, or so short that nobody came.
    """
    if name not in _BUILTIN:
        raise UnknownNameError("built-in workload", name, _BUILTIN)
    if not (duration_s > 0 and math.isfinite(duration_s)):
        raise TraceError(f"a workload must last more than 0 seconds, not {duration_s:g}")
    trace = _BUILTIN[name](duration_s, np.random.default_rng(seed))
    trace.name = name
    if not len(trace):
        raise TraceError(f"no request of {name} arrives within {duration_s:g} s; make it longer")
    return trace


def from_shape(shape: Shape, duration_s: float, rng: np.random.Generator) -> Trace:
    """Draw a trace of a service."""
    arrivals = cox_arrivals(shape, duration_s, rng)
    inputs = shape.inputs.draw(len(arrivals), rng)
    outputs = shape.outputs.draw(len(arrivals), rng)
    rows = zip(arrivals, inputs, outputs, strict=True)
    return Trace().extend(TraceRecord(when, i, o) for when, i, o in rows)


def cox_arrivals(shape: Shape, duration_s: float, rng: np.random.Generator) -> list[float]:
    """Draw arrival times: Poisson counts per second, given a random rate per second."""
    seconds = math.ceil(duration_s)
    points = np.array(shape.profile, dtype=np.float64)
    step_s = 3600.0 / len(points)
    where = np.arange(seconds) % 3600.0
    rate = np.interp(where, (np.arange(len(points)) + 0.5) * step_s, points / points.mean())
    rate *= shape.rate_per_s
    for layer in shape.layers:
        rate *= _factors(layer, seconds, rng)
    counts = rng.poisson(rate)
    arrivals = np.repeat(np.arange(seconds), counts) + rng.random(int(counts.sum()))
    return [when for when in np.sort(arrivals).tolist() if when < duration_s]


def _factors(layer: Modulation | OnOff, seconds: int, rng: np.random.Generator) -> Floats:
    if isinstance(layer, OnOff):
        return _on_share(layer, seconds, rng) * (layer.on_s + layer.off_s) / layer.on_s
    windows = seconds // layer.window_s + 1
    drawn = rng.gamma(1.0 / layer.variance, layer.variance, windows)
    return np.repeat(drawn, layer.window_s)[:seconds]


def _on_share(layer: OnOff, seconds: int, rng: np.random.Generator) -> Floats:
    """Share of every second that lies in a burst."""
    covered = np.zeros(seconds + 1, dtype=np.float64)
    on = bool(rng.random() < layer.on_s / (layer.on_s + layer.off_s))
    now = 0.0
    while now < seconds:
        end = min(float(seconds), now + float(rng.exponential(layer.on_s if on else layer.off_s)))
        if on:
            first, last = int(now), int(end)
            covered[first : last + 1] += 1.0
            covered[first] -= now - first
            covered[last] -= last + 1 - end
        now, on = end, not on
    return covered[:seconds]


def chats(shape: ChatShape, duration_s: float, rng: np.random.Generator) -> Trace:
    """Draw multi-turn chats with the prefix hashes that their growing prompts share."""
    trace = Trace()
    waiting: list[tuple[float, int, _Chat]] = []
    for chat in _new_chats(shape, duration_s, rng):
        while waiting and waiting[0][0] <= chat.next_s:
            _take_turn(trace, waiting, shape, rng)
        heapq.heappush(waiting, (chat.next_s, chat.number, chat))
    while waiting and waiting[0][0] < duration_s:
        _take_turn(trace, waiting, shape, rng)
    return trace


@dataclass(slots=True)
class _Chat:
    number: int
    service: int
    turns_left: int
    next_s: float
    context_tokens: int


def _new_chats(shape: ChatShape, duration_s: float, rng: np.random.Generator) -> Iterator[_Chat]:
    services = len(shape.system_prompt_tokens)
    popularity = 1.0 / np.arange(1, services + 1)
    now, number = 0.0, 0
    while True:
        now += float(rng.exponential(shape.mean_turns / shape.rate_per_s))
        if now >= duration_s:
            return
        service = int(rng.choice(services, p=popularity / popularity.sum()))
        turns = int(rng.geometric(1.0 / shape.mean_turns))
        yield _Chat(number, service, turns, now, shape.system_prompt_tokens[service])
        number += 1


def _take_turn(
    trace: Trace,
    waiting: list[tuple[float, int, _Chat]],
    shape: ChatShape,
    rng: np.random.Generator,
) -> None:
    """Emit the earliest waiting turn, and queue the chat's next one."""
    when, _, chat = heapq.heappop(waiting)
    message = max(1, round(shape.message_median_tokens * _log_normal(shape.message_sigma, rng)))
    prompt = min(chat.context_tokens + message, shape.most_context_tokens)
    output = AZURE_CONV.outputs.draw(1, rng)[0]
    trace.append(
        TraceRecord(
            when,
            prompt,
            output,
            tenant=f"service-{chat.service}",
            session=f"chat-{chat.number}",
            prefix_hashes=_chat_hashes(shape, chat, prompt),
            prefix_block_tokens=shape.block_tokens,
        )
    )
    chat.turns_left -= 1
    chat.context_tokens = prompt + output
    if chat.turns_left > 0 and chat.context_tokens < shape.most_context_tokens:
        think_s = shape.think_median_s * _log_normal(shape.think_sigma, rng)
        chat.next_s = when + output * shape.seconds_per_token + think_s
        heapq.heappush(waiting, (chat.next_s, chat.number, chat))


def _log_normal(sigma: float, rng: np.random.Generator) -> float:
    return float(math.exp(sigma * rng.standard_normal()))


def _chat_hashes(shape: ChatShape, chat: _Chat, prompt: int) -> tuple[int, ...]:
    """Blocks inside the system prompt belong to the service, later ones to the chat."""
    shared = shape.system_prompt_tokens[chat.service] // shape.block_tokens
    blocks = prompt // shape.block_tokens
    mine = -1 - chat.number
    return chain(chat.service if k < shared else mine for k in range(blocks))


_BUILTIN: dict[str, Callable[[float, np.random.Generator], Trace]] = {
    "azure-conv-like": lambda duration_s, rng: from_shape(AZURE_CONV, duration_s, rng),
    "azure-code-like": lambda duration_s, rng: from_shape(AZURE_CODE, duration_s, rng),
    "chat-prefix-like": lambda duration_s, rng: chats(ChatShape(), duration_s, rng),
}
