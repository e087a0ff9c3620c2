"""BERT's tokenizer: words split at spaces and punctuation, then into the longest known pieces."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping

_LONGEST_WORD = 100
_HAN = ((0x4E00, 0x9FFF), (0x3400, 0x4DBF), (0x20000, 0x2FA1F), (0xF900, 0xFAFF))


class WordPiece:
    """Uncased, as ``bert-base-uncased`` has it.

    Args:
        vocabulary: piece to id; holds ``[CLS]``, ``[SEP]`` and ``[UNK]``.
        longest: most ids, the two special ones among them.
    """

    def __init__(self, vocabulary: Mapping[str, int], longest: int = 256) -> None:
        self._ids = vocabulary
        self._longest = longest

    def __call__(self, text: str) -> list[int]:
        """The ids of a text."""
        known = self._ids
        pieces = [known[piece] for word in words(text) for piece in self._pieces(word)]
        return [known["[CLS]"], *pieces[: self._longest - 2], known["[SEP]"]]

    def _pieces(self, word: str) -> list[str]:
        if len(word) > _LONGEST_WORD:
            return ["[UNK]"]
        found: list[str] = []
        at = 0
        while at < len(word):
            prefix = "##" if at else ""
            end = next(
                (e for e in range(len(word), at, -1) if prefix + word[at:e] in self._ids), None
            )
            if end is None:
                return ["[UNK]"]
            found.append(prefix + word[at:end])
            at = end
        return found


def words(text: str) -> Iterator[str]:
    """Words and single marks of punctuation, in lower case and without accents."""
    decomposed = unicodedata.normalize("NFD", text.lower())
    word = ""
    for letter in decomposed:
        kind = unicodedata.category(letter)
        if kind == "Mn" or (kind.startswith("C") and not letter.isspace()) or letter == "\ufffd":
            continue
        alone = _is_punctuation(letter, kind) or _is_han(letter)
        if alone or letter.isspace():
            if word:
                yield word
            word = ""
            if alone:
                yield letter
        else:
            word += letter
    if word:
        yield word


def _is_punctuation(letter: str, kind: str) -> bool:
    return kind.startswith("P") or (letter.isascii() and kind.startswith("S"))


def _is_han(letter: str) -> bool:
    return any(low <= ord(letter) <= high for low, high in _HAN)
