"""From an engine's blocks of tokens to the router's blocks of text.

The router hashes prompts by kilobytes of text, for it has no tokenizer; an engine hashes blocks of
tokens. Which engine block stands at the end of which text block is learned from requests::

    a request of P prompt and O output tokens leaves a chain of (P + O - 1) / block or so blocks
    behind it; if one chain of that length, and only one, grew while the request was there, it is
    the request's, and text block j of its prompt ends at token P * (share of the text) of it

From then on the engine's own news of those blocks is news of the text: evicted, stored again (by
whoever sent it), all cleared. What it leaves open: a text block's end is taken for proportional to
the text, so it is right to a block or so; requests of equal length at one time teach nothing; text
that was never learned is the approximate index's affair, as it is for engines that publish nothing.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from router.domain.outcome import Outcome
from router.domain.request import Request
from router.gateway.kv_events.wire import BlockHash, Cleared, Event, Removed, Stored

MOST_BLOCKS = 200_000
"""Engine blocks remembered per backend: 3.2 million tokens, more than any card holds."""
MOST_WAITING = 512
GROWN = 4_096


class Listener(Protocol):
    """Who is told; implemented by ``Dispatcher``."""

    def cached(
        self,
        backend: str,
        now: float,
        *,
        stored: Sequence[int] = (),
        evicted: Sequence[int] = (),
        block_tokens: int = 0,
    ) -> None:
        """An engine said so of blocks of text."""

    def restarted(self, backend: str, now: float) -> None:
        """Its cache is empty."""


@dataclass(slots=True)
class _Block:
    parent: BlockHash | None
    depth: int
    held: bool
    text: int | None = None


@dataclass(slots=True)
class _Sent:
    hashes: tuple[int, ...]
    block_tokens: int
    prompt_tokens: int
    at_s: float


class Follower:
    """Follows one engine's cache.

    Args:
        backend: its name.
        listener: told what it means for prompts.

    Attributes:
        counts: ``stored``, ``removed`` and ``cleared`` events; ``learned`` and ``ambiguous``
            requests; ``evicted`` blocks of text that the index may still have held.
    """

    def __init__(self, backend: str, listener: Listener) -> None:
        self._backend, self._listener = backend, listener
        self._blocks: OrderedDict[BlockHash, _Block] = OrderedDict()
        self._grown: OrderedDict[BlockHash, float] = OrderedDict()  # leaves, by when
        self._sent: OrderedDict[str, _Sent] = OrderedDict()
        self._block_tokens = self._text_tokens = 0
        self.counts: Counter[str] = Counter()

    def sent(self, request: Request, now: float) -> None:
        """A prompt goes there."""
        if request.prefix_hashes:
            self._sent[request.request_id] = _Sent(
                request.prefix_hashes, request.prefix_block_tokens, request.prompt_tokens, now
            )
            if len(self._sent) > MOST_WAITING:
                self._sent.popitem(last=False)

    def observe(self, outcome: Outcome) -> None:
        """It is over; with the engine's own counts it may teach which blocks were its own."""
        sent = self._sent.pop(outcome.request_id, None)
        if sent is None or outcome.status != "completed" or not self._block_tokens:
            return
        leaf = self._leaf_of(outcome, sent.at_s)
        if leaf is None:
            self.counts["ambiguous"] += 1
        else:
            self._learn(leaf, sent, outcome.prompt_tokens)

    def heard(self, events: Iterable[Event], now: float) -> None:
        """A batch of events, in order."""
        stored: list[int] = []
        evicted: list[int] = []
        for event in events:
            if isinstance(event, Stored):
                self.counts["stored"] += 1
                stored += self._stored(event, now)
            elif isinstance(event, Removed):
                self.counts["removed"] += 1
                evicted += self._removed(event)
            elif isinstance(event, Cleared):
                self.counts["cleared"] += 1
                stored, evicted = [], []
                self.forget(now)
        if stored or evicted:
            self.counts["evicted"] += len(evicted)
            gone = frozenset(evicted)
            kept = tuple(one for one in stored if one not in gone)
            self._listener.cached(
                self._backend,
                now,
                stored=kept,
                evicted=tuple(evicted),
                block_tokens=self._text_tokens,
            )

    def forget(self, now: float) -> None:
        """Nothing is cached there any more, or nobody knows what: begin anew."""
        self._blocks.clear()
        self._grown.clear()
        self._listener.restarted(self._backend, now)

    # -- inside ------------------------------------------------------------------------------

    def _stored(self, event: Stored, now: float) -> list[int]:
        self._block_tokens = event.block_tokens
        parent, found = event.parent, []
        above = self._blocks.get(parent) if parent is not None else None
        depth = above.depth if above is not None else 0
        known = parent is None or (above is not None and above.depth >= 0)
        for key in event.hashes:
            depth += 1
            block = self._blocks.get(key)
            if block is None:
                block = self._blocks[key] = _Block(parent, depth if known else -1, True)
            elif not block.held:
                block.held = True
                if block.text is not None:
                    found.append(block.text)
            self._blocks.move_to_end(key)
            self._grown.pop(parent, None)  # type: ignore[arg-type]
            parent = key
        if event.hashes:
            self._grown[event.hashes[-1]] = now
        while len(self._blocks) > MOST_BLOCKS:
            self._blocks.popitem(last=False)
        while len(self._grown) > GROWN:
            self._grown.popitem(last=False)
        return found

    def _removed(self, event: Removed) -> list[int]:
        found = []
        for key in event.hashes:
            block = self._blocks.get(key)
            if block is not None and block.held:
                block.held = False
                if block.text is not None:
                    found.append(block.text)
        return found

    def _leaf_of(self, outcome: Outcome, since_s: float) -> BlockHash | None:
        """The only chain that grew meanwhile and is as long as this request; ``None`` if none."""
        total, size = outcome.prompt_tokens + outcome.output_tokens, self._block_tokens
        depths = {(total - 1) // size, total // size}
        fitting = [
            key
            for key, at_s in self._grown.items()
            if at_s >= since_s and (block := self._blocks.get(key)) and block.depth in depths
        ]
        return fitting[0] if len(fitting) == 1 else None

    def _learn(self, leaf: BlockHash, sent: _Sent, prompt_tokens: int) -> None:
        """Walk the chain up from its leaf and put the text's blocks where they end."""
        scale = prompt_tokens / max(sent.prompt_tokens, 1) / self._block_tokens
        ends: dict[int, int] = {}
        for j, text in enumerate(sent.hashes, start=1):
            depth = int(j * sent.block_tokens * scale)
            if 0 < depth <= prompt_tokens // self._block_tokens:
                ends[depth] = text
        key: BlockHash | None = leaf
        while key is not None and (block := self._blocks.get(key)) is not None:
            if block.depth in ends:
                block.text = ends[block.depth]
            key = block.parent
        self._text_tokens = sent.block_tokens
        self.counts["learned"] += 1
