"""What an answer is worth, from 0 to 1, where reading it is enough.

Exact match and F1 of words are SQuAD's (Rajpurkar et al. 2016): lower case, without punctuation
and articles.
"""

from __future__ import annotations

import math
import re
import string
from collections import Counter
from collections.abc import Sequence

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_NUMBER = re.compile(r"[-+]?(?:\d[\d,]*(?:\.\d+)?|\.\d+)(?:[eE][-+]?\d+)?")
_CODE = re.compile(r"```[ \t]*(?:python|py)?[^\n]*\n(.*?)```", re.DOTALL | re.IGNORECASE)
_THOUGHT = re.compile(r"<think>.*?(</think>|\Z)", re.DOTALL)
CLOSE = 1e-6


def normalized(text: str) -> str:
    """SQuAD's normalisation."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def exact_match(answer: str, truths: Sequence[str]) -> float:
    """1 if the answer is one of the truths, normalised."""
    return float(any(normalized(answer) == normalized(truth) for truth in truths))


def f1(answer: str, truths: Sequence[str]) -> float:
    """Harmonic mean of precision and recall of words, of the truth that fits best."""
    return max(_f1(normalized(answer).split(), normalized(truth).split()) for truth in truths)


def _f1(said: list[str], wanted: list[str]) -> float:
    if not said or not wanted:
        return float(said == wanted)
    both = sum((Counter(said) & Counter(wanted)).values())
    return 2.0 * both / (len(said) + len(wanted))


def final_number(answer: str) -> float | None:
    """The last number that the answer names; ``None`` if it names none."""
    found = _NUMBER.findall(answer)
    if not found:
        return None
    value = float(found[-1].replace(",", ""))
    return value if math.isfinite(value) else None


def same_number(answer: str, truth: float) -> float:
    """1 if the final number is the truth."""
    said = final_number(answer)
    return float(said is not None and math.isclose(said, truth, rel_tol=CLOSE, abs_tol=CLOSE))


def code_in(answer: str) -> str:
    """The code of an answer: its first code block, or all of it if it has none."""
    found = _CODE.search(answer)
    return found[1] if found else answer


def without_thoughts(answer: str) -> str:
    """An answer without what a reasoning model thought aloud before it."""
    return _THOUGHT.sub("", answer).strip()
