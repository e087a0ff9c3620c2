"""Backends by name, against a real name server on loopback."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset
import pytest

from router.config.discovery import DnsSource, server_and_port
from router.gateway.discovery.dns import FromDns
from router.gateway.discovery.seam import DiscoveryError
from tests.fakes import MODEL

TEMPLATE = {"gpu": "l4", "model": MODEL}
ASKED = {"name": "x", "port": 1, "template": TEMPLATE}


class NameServer(asyncio.DatagramProtocol):
    """Answers what ``records`` says; a name without any is NXDOMAIN, ``None`` is SERVFAIL."""

    def __init__(self) -> None:
        self.records: dict[tuple[str, str], list[str] | None] = {}
        self.port = 0

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self.port = transport.get_extra_info("sockname")[1]

    def datagram_received(self, data: bytes, addr: Any) -> None:
        query = dns.message.from_wire(data)
        question = query.question[0]
        kind = dns.rdatatype.to_text(question.rdtype)
        answer = dns.message.make_response(query)
        known = self.records.get((question.name.to_text(), kind), [])
        if known is None:
            answer.set_rcode(dns.rcode.SERVFAIL)
        elif known:
            answer.answer.append(dns.rrset.from_text(question.name, 1, "IN", kind, *known))
        elif not any(name == question.name.to_text() for name, _ in self.records):
            answer.set_rcode(dns.rcode.NXDOMAIN)
        self._transport.sendto(answer.to_wire(), addr)


@pytest.fixture
async def server() -> AsyncIterator[NameServer]:
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.create_datagram_endpoint(
        NameServer, local_addr=("127.0.0.1", 0)
    )
    yield protocol
    transport.close()


def source(server: NameServer, **settings: Any) -> FromDns:
    where = {"nameservers": [f"127.0.0.1:{server.port}"], "interval_s": 0.05}
    return FromDns(DnsSource.model_validate({**where, "template": TEMPLATE, **settings}))


async def test_addresses_come_and_go(server: NameServer) -> None:
    server.records[("vllm.svc.", "A")] = ["10.0.0.2", "10.0.0.1"]
    server.records[("vllm.svc.", "AAAA")] = ["fd00::1"]
    fleets = source(server, name="vllm.svc", port=8000).fleets()
    first = await anext(fleets)
    assert [(e.name, e.url, e.gpu) for e in first.entries] == [
        ("10.0.0.1:8000", "http://10.0.0.1:8000", "l4"),
        ("10.0.0.2:8000", "http://10.0.0.2:8000", "l4"),
        ("fd00::1:8000", "http://[fd00::1]:8000", "l4"),
    ]
    server.records[("vllm.svc.", "A")] = ["10.0.0.1"]
    server.records[("vllm.svc.", "AAAA")] = []
    assert [e.name for e in (await anext(fleets)).entries] == ["10.0.0.1:8000"]
    server.records.clear()
    assert (await anext(fleets)).entries == [], "no such name is a fleet of none"


async def test_srv_brings_hosts_and_ports(server: NameServer) -> None:
    targets = ["0 5 8001 a.vllm.svc.", "0 5 8002 b.vllm.svc."]
    server.records[("_http._tcp.vllm.svc.", "SRV")] = targets
    fleets = source(server, name="_http._tcp.vllm.svc", record="SRV", scheme="https").fleets()
    assert [e.url for e in (await anext(fleets)).entries] == [
        "https://a.vllm.svc:8001",
        "https://b.vllm.svc:8002",
    ]


async def test_a_name_server_in_trouble_is_an_error_not_an_empty_fleet(server: NameServer) -> None:
    server.records[("vllm.svc.", "A")] = None
    fleets = source(server, name="vllm.svc", record="A", port=1).fleets()
    with pytest.raises(DiscoveryError, match=r"cannot resolve vllm\.svc"):
        await anext(fleets)


async def test_every_name_server_has_a_port_of_its_own(server: NameServer) -> None:
    server.records[("vllm.svc.", "A")] = ["10.0.0.1"]
    where = ["127.0.0.1:9", f"127.0.0.1:{server.port}"]
    asked = source(server, name="vllm.svc", record="A", port=1, nameservers=where, interval_s=5)
    assert [e.name for e in (await anext(asked.fleets())).entries] == ["10.0.0.1:1"]


@pytest.mark.parametrize(
    ("told", "read"),
    [
        ("10.0.0.1", ("10.0.0.1", 53)),
        ("10.0.0.1:5353", ("10.0.0.1", 5353)),
        ("fd00::1", ("fd00::1", 53)),
        ("[fd00::1]:5353", ("fd00::1", 5353)),
        ("[fd00::1]", ("fd00::1", 53)),
    ],
)
def test_addresses_of_name_servers(told: str, read: tuple[str, int]) -> None:
    assert server_and_port(told) == read


async def test_the_systems_own_resolver() -> None:
    settings = {"name": "localhost", "record": "A", "port": 9, "template": TEMPLATE}
    seen = await anext(FromDns(DnsSource.model_validate(settings)).fleets())
    assert [e.url for e in seen.entries] == ["http://127.0.0.1:9"]


@pytest.mark.parametrize(
    ("section", "says"),
    [
        ({"name": "x", "template": TEMPLATE}, "port is missing"),
        ({"name": "x", "port": 1, "template": {"gpu": "l4"}}, "template needs gpu and model"),
        ({"name": "a..b", "port": 1, "template": TEMPLATE}, "is no name of a host"),
        ({"name": "a" * 64, "port": 1, "template": TEMPLATE}, "is no name of a host"),
        (ASKED | {"nameservers": ["ns.example"]}, "'ns.example' is no address of a name server"),
        (ASKED | {"nameservers": ["10.0.0.1:dns"]}, "is no address of a name server"),
        (ASKED | {"nameservers": ["10.0.0.1:70000"]}, "is no address of a name server"),
    ],
)
def test_mistakes(section: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        DnsSource.model_validate(section)
