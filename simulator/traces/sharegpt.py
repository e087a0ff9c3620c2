"""ShareGPT-like conversations: lengths from text, first exchange of each.

``[{"id", "conversations": [{"from", "value"}, ...]}, ...]``. As in vLLM's own benchmark only the
first question and answer count. Tokens are estimated at four characters each (English text on
GPT-style vocabularies), because no tokenizer is at hand. There are no arrival times.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from simulator.traces.parsing import Numbered, parse_each
from simulator.traces.record import ReadReport, TraceRecord
from simulator.traces.source import Line

CHARACTERS_PER_TOKEN = 4


class _Turn(msgspec.Struct):
    value: str


class _Conversation(msgspec.Struct):
    conversations: list[_Turn]
    id: str | int = ""


def read_sharegpt(items: Iterator[Line], report: ReadReport) -> Iterator[Numbered]:
    """Yield one untimed request per conversation."""
    decoder = msgspec.json.Decoder(_Conversation)
    report.timed = False

    def parse(text: str) -> TraceRecord:
        turns = decoder.decode(text).conversations
        if len(turns) < 2:
            raise ValueError("a conversation needs a question and an answer")
        question, answer = turns[0].value, turns[1].value
        return TraceRecord(0.0, _tokens(question), _tokens(answer) if answer else 0)

    return parse_each(items, parse, report)


def _tokens(text: str) -> int:
    return max(1, len(text) // CHARACTERS_PER_TOKEN)
