"""Where backends come from besides the file: the ``discovery`` section."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from router.config.section import MOST, Engine, Seconds, Section


class Template(Section):
    """What the backends of one source have in common, as far as the source does not tell."""

    gpu: str | None = None
    model: str | None = None
    engine: Engine = "vllm"
    tensor_parallel: int = Field(default=1, ge=1, le=64)
    engine_version: str = ""
    quantization: str = ""
    max_model_len: int | None = Field(default=None, ge=1, le=MOST)
    zone: str = ""


class FileSource(Section):
    """A YAML file with a ``backends`` list, read again whenever it changes."""

    path: str
    interval_s: Seconds = 1.0


def server_and_port(told: str) -> tuple[str, int]:
    """Address and port of a name server.

    Raises:
        ValueError: it is no IP address, or no port.
    """
    host, _, port = told.rpartition(":")
    if not host or told.endswith("]") or (":" in host and not told.startswith("[")):
        host, port = told, "53"
    address = ip_address(host.removeprefix("[").removesuffix("]"))
    if not (port.isdecimal() and 0 < int(port) < 65_536):
        raise ValueError(f"{port!r} is no port")
    return str(address), int(port)


class DnsSource(Section):
    """Every address of a name is a backend; resolved again every ``interval_s``.

    ``record`` SRV takes hosts and ports from the answer (extra ``dns``); A and AAAA ask for
    addresses of one family, ``any`` for both, and need ``port``.
    """

    name: str = Field(min_length=1)
    record: Literal["A", "AAAA", "any", "SRV"] = "any"
    port: int | None = Field(default=None, ge=1, le=65535)
    scheme: Literal["http", "https"] = "http"
    interval_s: Seconds = 5.0
    nameservers: list[str] = Field(default_factory=list)
    template: Template

    @field_validator("name")
    @classmethod
    def _is_a_name(cls, value: str) -> str:
        try:
            value.encode("idna")
        except UnicodeError as error:
            raise ValueError(f"{value!r:.80} is no name of a host: {error}") from error
        return value

    @field_validator("nameservers")
    @classmethod
    def _are_addresses(cls, value: list[str]) -> list[str]:
        for server in value:
            try:
                server_and_port(server)
            except ValueError as error:
                raise ValueError(
                    f"{server!r} is no address of a name server: give an IP address, with a port "
                    "if it is not 53, as in 10.0.0.10:5353 or [fd00::10]:5353"
                ) from error
        return value

    @model_validator(mode="after")
    def _is_complete(self) -> Self:
        if self.record != "SRV" and self.port is None:
            raise ValueError(f"port is missing: {self.record} records carry none")
        if not (self.template.gpu and self.template.model):
            raise ValueError("template needs gpu and model: DNS tells neither")
        return self


class KubernetesSource(Section):
    """Ready endpoints of a service, or ready pods by label (extra ``kubernetes``).

    What neither pod nor node tells is the template's; with ``ask_engines``, model and engine (and
    SGLang's card) are asked of the engine itself.
    GPU type: annotation ``motley.dev/gpu`` of the pod, else the labels of its node
    (``nvidia.com/gpu.product``, clouds' accelerator labels), else the template. Model, engine,
    tensor parallelism and context: annotations or labels ``motley.dev/model``, ``/engine``,
    ``/tensor-parallel``, ``/max-model-len``, ``/quantization``.
    """

    namespace: str | None = None
    service: str | None = None
    label_selector: str | None = None
    pod_selector: str | None = None
    ask_engines: bool = False
    port: int | str | None = None
    scheme: Literal["http", "https"] = "http"
    node_labels: bool = True
    resync_s: Seconds = 300.0
    retry_s: Seconds = 1.0
    api_url: str | None = None
    kubeconfig: str | None = None
    template: Template = Template()

    @model_validator(mode="after")
    def _selects_something(self) -> Self:
        if not (self.service or self.label_selector or self.pod_selector):
            raise ValueError(
                "give service, or label_selector of the services' EndpointSlices, or pod_selector"
            )
        if self.pod_selector and (self.service or self.label_selector):
            raise ValueError("pod_selector stands alone: pods are taken as they are, not services")
        if self.pod_selector and not isinstance(self.port, int):
            raise ValueError("pod_selector needs port, a number: there is no service to look it up")
        return self


class DiscoverySection(Section):
    """Sources of backends, beside the ``backends`` of the file.

    A model whose last discovered backend has gone is answered 503 for ``grace_s``, then 404.
    """

    files: list[FileSource] = Field(default_factory=list)
    dns: list[DnsSource] = Field(default_factory=list)
    kubernetes: list[KubernetesSource] = Field(default_factory=list)
    grace_s: float = Field(default=300.0, ge=0, allow_inf_nan=False)

    def __bool__(self) -> bool:
        """Whether there is any."""
        return bool(self.files or self.dns or self.kubernetes)
