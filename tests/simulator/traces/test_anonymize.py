"""What may be given away: the shape of the traffic, and nobody in it."""

from __future__ import annotations

from simulator.traces.anonymize import anonymized
from simulator.traces.columns import Trace
from simulator.traces.record import TraceRecord


def trace() -> Trace:
    def one(at: float, tenant: str, session: str, hashes: tuple[int, ...]) -> TraceRecord:
        return TraceRecord(
            arrival_s=at,
            input_tokens=100,
            output_tokens=10,
            model="m",
            slo_class="bulk",
            tenant=tenant,
            session=session,
            prefix_hashes=hashes,
            prefix_block_tokens=16,
        )

    return Trace("t").extend(
        [
            one(0.0, "acme", "s1", (1, 2)),
            one(1.0, "acme", "s2", (1, 3)),
            one(2.0, "", "s1", ()),
            one(3.0, "other", "", (2**63 - 1, -5)),
        ]
    )


def test_names_and_prefixes_are_gone_and_what_is_shared_stays() -> None:
    plain, hidden = trace(), anonymized(trace(), b"salt")
    assert hidden.tenant[0] == hidden.tenant[1] != hidden.tenant[3]
    assert hidden.session[0] == hidden.session[2] != hidden.session[1]
    assert hidden.tenant[2] == ""
    assert not {"acme", "other", "s1", "s2"} & {*hidden.tenant.names, *hidden.session.names}
    first, second = hidden.prefix_hashes(0), hidden.prefix_hashes(1)
    assert first[0] == second[0]
    assert first[1] != second[1]
    assert not {*first, *second, *hidden.prefix_hashes(3)} & {1, 2, 3, 2**63 - 1, -5}
    assert list(hidden.arrival_s) == list(plain.arrival_s)
    assert [r.model for r in hidden.records()] == ["m"] * 4


def test_the_salt_decides_and_the_trace_given_is_left_alone() -> None:
    given = trace()
    assert anonymized(given, b"a").tenant[0] == anonymized(given, b"a").tenant[0]
    assert anonymized(given, b"a").tenant[0] != anonymized(given, b"b").tenant[0]
    assert anonymized(given, b"a").prefix_hashes(0) != anonymized(given, b"b").prefix_hashes(0)
    assert given.tenant[0] == "acme"
    assert given.prefix_hashes(0) == (1, 2)
