"""Questions with known answers, from a JSONL file or the built-in set.

One object a line::

    {"category": "qa", "question": "...", "context": "...", "answers": ["...", "..."]}
    {"category": "reasoning", "question": "...", "answer": 42}
    {"category": "chat", "question": "...", "references": ["...", "..."]}
    {"category": "code", "question": "...", "tests": "assert f(1) == 2"}

``id`` and ``context`` may be left out; of several answers or references the best match counts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Annotated

import msgspec

from router.domain.errors import ConfigError

BUILT_IN = "builtin"
CATEGORIES = ("qa", "reasoning", "chat", "code")

Text = Annotated[str, msgspec.Meta(min_length=1)]
Texts = Annotated[list[Text], msgspec.Meta(min_length=1)]


class _Line(msgspec.Struct, tag_field="category", forbid_unknown_fields=True, kw_only=True):
    question: Text
    id: str = ""
    context: str = ""


class Qa(_Line, tag="qa"):
    """A question whose answer is a few words."""

    answers: Texts


class Reasoning(_Line, tag="reasoning"):
    """A question whose answer is a number."""

    answer: float


class Chat(_Line, tag="chat"):
    """A question that many answers are good for."""

    references: Texts


class Code(_Line, tag="code"):
    """A function to write, and the asserts that it must pass."""

    tests: Text


Item = Qa | Reasoning | Chat | Code


@dataclass(frozen=True, slots=True)
class Asked:
    """One item with its name and category."""

    name: str
    category: str
    item: Item


def read_items(source: str) -> list[Asked]:
    """Read a data set.

    Args:
        source: path of a JSONL file, or ``builtin``.

    Raises:
        ConfigError: it cannot be read, holds nothing, repeats an id, or a line is not as
            described above; the message names the line.
    """
    try:
        text = _builtin() if source == BUILT_IN else Path(source).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the data set {source}: {error}") from None
    items = list(_parsed(source, text))
    if not items:
        raise ConfigError(f"{source}: no item in it; give one JSON object a line")
    twice = [name for name, count in Counter(one.name for one in items).items() if count > 1]
    if twice:
        raise ConfigError(f"{source}: the id {twice[0]!r} is there twice")
    return items


def _builtin() -> str:
    return (files("simulator.evaluate") / "builtin.jsonl").read_text("utf-8")


def _parsed(source: str, text: str) -> Iterator[Asked]:
    decoder = msgspec.json.Decoder(Item)
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            item = decoder.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise ConfigError(f"{source}:{number}: {error}") from None
        category = str(type(item).__struct_config__.tag)
        yield Asked(item.id or f"line {number}", category, item)


def prompt_of(item: Item) -> str:
    """What the model is told."""
    before = f"{item.context}\n\n" if item.context else ""
    return f"{before}{item.question}\n\n{_MANNER[type(item)]}".rstrip()


_MANNER: dict[type[Item], str] = {
    Qa: "Answer with the shortest words that answer it, and nothing else.",
    Reasoning: "Think step by step. End with a line that says 'Answer:' and the number.",
    Chat: "",
    Code: "Answer with one Python code block that holds the whole function. Only the standard "
    "library is there.",
}

LONGEST_TOKENS = {"qa": 48, "reasoning": 512, "chat": 256, "code": 512}
"""Most tokens of an answer, by category."""
