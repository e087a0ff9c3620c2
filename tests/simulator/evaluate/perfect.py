"""A model that knows every answer of the built-in set, and one that forgets some; over HTTP."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from simulator.evaluate.items import Chat, Code, Item, Qa, Reasoning, prompt_of, read_items
from tests.fakes import http_server
from tests.fakes.http_server import Handler

SOLUTIONS = {
    "code-01": "def middle(text):\n    n = len(text)\n    return text[(n - 1) // 2 : n // 2 + 1]",
    "code-02": "from itertools import groupby\n"
    "def runs(text):\n    return [(c, len(list(g))) for c, g in groupby(text)]",
    "code-03": "def second_largest(numbers):\n    found = sorted(set(numbers))\n"
    "    return found[-2] if len(found) > 1 else None",
    "code-04": "def is_balanced(text):\n    pairs, stack = {')': '(', ']': '[', '}': '{'}, []\n"
    "    for c in text:\n        if c in '([{':\n            stack.append(c)\n"
    "        elif c in pairs and (not stack or stack.pop() != pairs[c]):\n"
    "            return False\n    return not stack",
    "code-05": "def minutes(clock):\n    h, m = clock.split(':')\n    return 60 * int(h) + int(m)",
    "code-06": "def transpose(rows):\n    return [list(column) for column in zip(*rows)]",
    "code-07": "def digits(n):\n    return sum(map(int, str(abs(n))))",
    "code-08": "from heapq import merge as m\ndef merge(a, b):\n    return list(m(a, b))",
    "code-09": "def window_max(numbers, k):\n"
    "    return [max(numbers[i : i + k]) for i in range(len(numbers) - k + 1)]",
    "code-10": "def roman(n):\n    out = ''\n    for value, mark in ((1000, 'M'), (900, 'CM'), "
    "(500, 'D'), (400, 'CD'), (100, 'C'), (90, 'XC'), (50, 'L'), (40, 'XL'), (10, 'X'), "
    "(9, 'IX'), (5, 'V'), (4, 'IV'), (1, 'I')):\n"
    "        while n >= value:\n            out, n = out + mark, n - value\n    return out",
    "code-11": "def primes(n):\n"
    "    return [p for p in range(2, n + 1) if all(p % q for q in range(2, p))]",
    "code-12": "def flatten(nested):\n    return [x for part in nested "
    "for x in (flatten(part) if isinstance(part, list) else [part])]",
    "code-13": "import os.path\ndef common(a, b):\n    return os.path.commonprefix([a, b])",
    "code-14": "def group_by_length(words):\n    out = {}\n    for word in words:\n"
    "        out.setdefault(len(word), []).append(word)\n    return out",
    "code-15": "from math import comb\n"
    "def paths(rows, columns):\n    return comb(rows + columns - 2, rows - 1)",
    "code-16": "def intervals(spans):\n    out = []\n    for a, b in sorted(spans):\n"
    "        if out and a <= out[-1][1]:\n"
    "            out[-1] = (out[-1][0], max(b, out[-1][1]))\n"
    "        else:\n            out.append((a, b))\n    return out",
    "code-17": "def caesar(text, shift):\n    def one(c):\n"
    "        base = ord('a') if 'a' <= c <= 'z' else ord('A') if 'A' <= c <= 'Z' else None\n"
    "        return c if base is None else chr((ord(c) - base + shift) % 26 + base)\n"
    "    return ''.join(map(one, text))",
    "code-18": "def most_common(words):\n"
    "    return min(set(words), key=lambda word: (-words.count(word), word))",
    "code-19": "def rotate(items, k):\n    if not items:\n        return []\n"
    "    k %= len(items)\n    return items[-k:] + items[:-k] if k else list(items)",
    "code-20": "from math import prod\ndef evaluate(expression):\n"
    "    return sum(prod(map(int, part.split('*'))) for part in expression.split('+'))",
}


def right(name: str, item: Item) -> str:
    match item:
        case Qa():
            return item.answers[0]
        case Reasoning():
            return f"First 7, then 9.\nAnswer: {item.answer:g}"
        case Chat():
            return item.references[0]
        case Code():
            return f"Here it is:\n```python\n{SOLUTIONS[name]}\n```\nIt works."


class Model:
    """What it answers, by prompt.

    Args:
        every: of how many items one is answered wrongly; 0 for none.
        name: under which it is served.
    """

    def __init__(self, every: int = 0, name: str = "m") -> None:
        self.name = name
        self.asked: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.failures = 0
        self._answers = {
            prompt_of(one.item): "Nobody knows."
            if every and number % every == 0
            else right(one.name, one.item)
            for number, one in enumerate(read_items("builtin"))
        }

    def answer(self, body: dict[str, Any]) -> str:
        self.asked.append(body)
        return self._answers[body["messages"][0]["content"]]


@contextmanager
def served(model: Model) -> Iterator[str]:
    """The model behind HTTP; yields its URL."""

    class Answers(Handler):
        def get(self) -> None:
            self.tell({"object": "list", "data": [{"id": model.name}]})

        def post(self) -> None:
            body = json.loads(self.read())
            model.keys.append(self.headers["authorization"])
            if model.failures:
                model.failures -= 1
                self.tell({"error": {"message": "busy"}}, 503)
                return
            message = {"role": "assistant", "content": model.answer(body)}
            self.tell({"choices": [{"index": 0, "message": message}]})

        def tell(self, document: dict[str, Any], status: int = 200) -> None:
            self.say(json.dumps(document).encode(), status)

    with http_server.served(Answers) as url:
        yield url
