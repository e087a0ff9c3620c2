"""OpenTelemetry: one span per request, joined to the caller's trace and passed on to the engine.

The only module that knows the SDK, which is an extra. Spans are batched and sent by a thread of
the SDK's; a collector that is away costs dropped spans, never a request.
"""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING

from router.domain.errors import ConfigError

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span

Headers = list[tuple[bytes, bytes]]
Value = str | bool | int | float | list[str]

CONTEXT_HEADERS = (b"traceparent", b"tracestate")
EXPORT_TIMEOUT_S = 3
"""Also how long stopping may wait for a collector that is away."""
COMPLAINT_S = 60.0
MOST_CHARACTERS = 256
"""Of one fact: a client may call a model by a name as long as a body."""

_NS = 1e9


class Tracing:
    """Begins and ends spans.

    Args:
        provider: where spans go.
    """

    def __init__(self, provider: TracerProvider) -> None:
        from opentelemetry.trace import SpanKind  # noqa: PLC0415 - an extra
        from opentelemetry.trace.propagation import tracecontext  # noqa: PLC0415 - an extra

        self._provider = provider
        self._tracer = provider.get_tracer("motley")
        self._kind = SpanKind.SERVER
        self._propagator = tracecontext.TraceContextTextMapPropagator()

    def begin(self, name: str, headers: Headers) -> tuple[Span, Headers]:
        """Begin a span under the caller's; returns it and the headers to pass on."""
        from opentelemetry.trace import set_span_in_context  # noqa: PLC0415 - an extra

        came = {n.decode("latin-1"): v.decode("latin-1") for n, v in headers if n in _CONTEXT}
        span = self._tracer.start_span(name, self._propagator.extract(came), self._kind)
        carrier: dict[str, str] = {}
        self._propagator.inject(carrier, set_span_in_context(span))
        passed = [pair for pair in headers if pair[0] not in _CONTEXT]
        passed += [(n.encode("latin-1"), v.encode("latin-1")) for n, v in carrier.items()]
        return span, passed

    def end(
        self,
        span: Span,
        attributes: Mapping[str, Value],
        *,
        events: Mapping[str, float],
        failed: str,
        ended_unix_s: float,
    ) -> None:
        """End a span.

        Args:
            span: as begun.
            attributes: facts.
            events: moments by name, in seconds since the epoch.
            failed: what went wrong; empty if nothing did.
            ended_unix_s: seconds since the epoch.
        """
        from opentelemetry.trace import StatusCode  # noqa: PLC0415 - an extra

        span.set_attributes(dict(attributes))
        for name, at_s in events.items():
            span.add_event(name, timestamp=int(at_s * _NS))
        if failed:
            span.set_status(StatusCode.ERROR, failed)
        span.end(int(ended_unix_s * _NS))

    def close(self) -> None:
        """Send what is left and stop; a collector that hangs is not waited for batch by batch."""
        last = threading.Thread(target=self._provider.shutdown, daemon=True)
        last.start()
        last.join(EXPORT_TIMEOUT_S)


class NowAndThen(logging.Filter):
    """Lets a complaint pass once in ``COMPLAINT_S``: a collector that is away for a day is told
    of three times in five seconds."""

    def __init__(self) -> None:
        super().__init__()
        self._next_s = -math.inf

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether it is time to tell."""
        if record.created < self._next_s:
            return False
        self._next_s = record.created + COMPLAINT_S
        return True


_CONTEXT = frozenset(CONTEXT_HEADERS)


def make_tracing(endpoint: str, ratio: float) -> Tracing:
    """Traces that go to an OTLP/HTTP collector.

    Args:
        endpoint: its base URL (``http://127.0.0.1:4318``) or the full one of its traces.
        ratio: share of requests traced, where the caller has not decided.

    Raises:
        ConfigError: the extra is not installed.
    """
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import (  # noqa: PLC0415
            OTLPSpanExporter,
        )
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
        from opentelemetry.sdk.trace import SpanLimits, TracerProvider  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
        from opentelemetry.sdk.trace.sampling import ParentBasedTraceIdRatio  # noqa: PLC0415
    except ImportError:
        raise ConfigError(
            "telemetry.otlp_endpoint needs OpenTelemetry: pip install 'motley-router[otel]'"
        ) from None
    url = endpoint.rstrip("/")
    url = url if url.endswith("/v1/traces") else f"{url}/v1/traces"
    provider = TracerProvider(
        sampler=ParentBasedTraceIdRatio(ratio),
        resource=Resource.create({"service.name": "motley"}),
        shutdown_on_exit=False,
        span_limits=SpanLimits(max_attribute_length=MOST_CHARACTERS),
    )
    exporter = OTLPSpanExporter(url, timeout=EXPORT_TIMEOUT_S)
    logger = logging.getLogger(OTLPSpanExporter.__module__)
    if not any(isinstance(known, NowAndThen) for known in logger.filters):
        logger.addFilter(NowAndThen())
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return Tracing(provider)
