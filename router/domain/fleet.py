"""Where a request may go: backends and the fleet. Frozen, because they live long."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

EngineName = Literal["vllm", "sglang", "llamacpp"]
ENGINES: tuple[EngineName, ...] = get_args(EngineName)
EngineArg = bool | int | float | str
Role = Literal["both", "prefill", "decode"]

CONTINUATION = "continuation"
"""Label of a backend; ``off`` keeps it from going on with an answer that broke off elsewhere: its
engine, or its chat template, does not take ``continue_final_message``."""


@dataclass(frozen=True, slots=True)
class BackendSpec:
    """One serving engine: a model on ``tensor_parallel`` cards of one type.

    Attributes:
        name: unique; ``<gpu>-<n>`` unless the file names it.
        gpu: key of the GPU catalogue ("a100-80", "t4").
        engine: which engine serves ("vllm", "sglang", "llamacpp": llama.cpp's ``llama-server``).
        model: key of the model catalogue, and the name clients ask for.
        tensor_parallel: cards that form this one engine.
        url: base URL; only ``serve`` needs it.
        zone: failure and network domain.
        engine_version: e.g. "0.18.1"; empty means current.
        quantization: weight format ("fp16", "fp8", "awq"); empty means the model's default.
        max_model_len: context limit in tokens; ``None`` means the model's own.
        kv_capacity_tokens: measured KV capacity in tokens; ``None`` means derived.
        max_num_seqs: engine limit on running requests; ``None`` means the engine's default.
        max_num_batched_tokens: token budget of one iteration (vLLM
            ``max_num_batched_tokens``, SGLang ``chunked_prefill_size``); ``None`` means the
            engine's default for this GPU.
        served_model: name under which the engine itself serves the model (vLLM's and SGLang's
            ``--served-model-name``); empty means ``model``.
        weight: hand weight, for the policies that take one.
        labels: free-form, for the user.
        engine_args: flags the engine was started with, by their own names (see
            ``router.perf.engine_args``).
        role: which half of a request it may serve where prompts and answers are computed apart
            (``router.pairing``); ``both`` serves whole requests and either half.
        bootstrap_port: where a prefill server of SGLang tells others how to fetch its KV.
        kv_events: where it publishes what is in its prefix cache (``tcp://host:5557``).
        kv_replay: where missed events can be asked for again.
    """

    name: str
    gpu: str
    engine: EngineName
    model: str
    tensor_parallel: int = 1
    url: str | None = None
    zone: str = ""
    engine_version: str = ""
    quantization: str = ""
    max_model_len: int | None = None
    kv_capacity_tokens: int | None = None
    max_num_seqs: int | None = None
    max_num_batched_tokens: int | None = None
    weight: float = 1.0
    served_model: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    engine_args: Mapping[str, EngineArg] = field(default_factory=dict)
    role: Role = "both"
    bootstrap_port: int | None = None
    kv_events: str = ""
    kv_replay: str = ""

    @property
    def continues(self) -> bool:
        """Whether its engine can go on after the beginning of an answer (see ``CONTINUATION``).

        llama.cpp knows no ``continue_final_message``.
        """
        return self.engine != "llamacpp" and self.labels.get(CONTINUATION) != "off"

    @property
    def group(self) -> str:
        """Identical backends share a group: the planner's columns and price keys."""
        tp = f"x{self.tensor_parallel}" if self.tensor_parallel > 1 else ""
        zone = f"@{self.zone}" if self.zone else ""
        quant = f":{self.quantization}" if self.quantization else ""
        role = "" if self.role == "both" else f"!{self.role}"
        return f"{self.gpu}{tp}/{self.engine}/{self.model}{quant}{zone}{role}"


@dataclass(frozen=True, slots=True)
class Fleet:
    """The backends, in the order of the file."""

    backends: tuple[BackendSpec, ...]

    @property
    def models(self) -> frozenset[str]:
        """Every model that some backend serves."""
        return frozenset(b.model for b in self.backends)

    def groups(self) -> dict[str, tuple[BackendSpec, ...]]:
        """Backends by group, in the order of first appearance."""
        grouped: dict[str, list[BackendSpec]] = {}
        for backend in self.backends:
            grouped.setdefault(backend.group, []).append(backend)
        return {group: tuple(members) for group, members in grouped.items()}
