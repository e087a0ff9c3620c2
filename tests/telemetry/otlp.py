"""A small OTLP/HTTP receiver on the loopback: what a collector does, and no more."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.fakes.http_server import Handler, served


@dataclass
class Collector:
    """Spans received, as plain values."""

    url: str = ""
    spans: list[dict[str, Any]] = field(default_factory=list)
    services: set[str] = field(default_factory=set)
    bodies: list[bytes] = field(default_factory=list)

    def take(self, body: bytes) -> None:
        from google.protobuf.json_format import MessageToDict
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
            ExportTraceServiceRequest,
        )

        request = ExportTraceServiceRequest.FromString(body)
        self.bodies.append(body)
        for resource in request.resource_spans:
            self.services |= {
                a.value.string_value
                for a in resource.resource.attributes
                if a.key == "service.name"
            }
            for scope in resource.scope_spans:
                for span in scope.spans:
                    values = {a.key: MessageToDict(a.value) for a in span.attributes}
                    self.spans.append(
                        {
                            "name": span.name,
                            "trace": span.trace_id.hex(),
                            "span": span.span_id.hex(),
                            "parent": span.parent_span_id.hex(),
                            "kind": span.kind,
                            "failed": span.status.message,
                            "seconds": (span.end_time_unix_nano - span.start_time_unix_nano) / 1e9,
                            "events": [e.name for e in span.events],
                            "attributes": {k: next(iter(v.values())) for k, v in values.items()},
                        }
                    )


@contextmanager
def collecting() -> Iterator[Collector]:
    collector = Collector()

    class Door(Handler):
        def post(self) -> None:
            body = self.read()
            if self.headers.get("content-encoding") == "gzip":
                body = gzip.decompress(body)
            assert self.path == "/v1/traces"
            collector.take(body)
            self.say(b"")

    with served(Door) as collector.url:
        yield collector
