"""A decode batch advanced in closed form.

Every member gains one token per iteration, so a member that reads ``c`` tokens at iteration
``i0`` reads ``base + i`` at iteration ``i``, with ``base = c - i0`` fixed for as long as it stays.
With ``n`` members and ``B`` the sum of their bases, the batch reads ``B + n*i`` tokens, and ``j``
iterations that each take ``a + s * tokens`` seconds take

    T(j) = j*(a + s*(B + n*i)) + s*n*j*(j - 1)/2

from iteration ``i`` on. A member takes a new KV block in the iterations in which ``base + i`` is
1 modulo the block size: a histogram of the members by that phase gives the blocks that ``j``
iterations take, ``n`` per whole cycle and a slice of the histogram for the rest.
"""

from __future__ import annotations

from heapq import heappop, heappush

from simulator.replica.job import Job
from simulator.replica.kv_cache import Holding


class Member(Holding):
    """A job inside the fast engine.

    Attributes:
        queued_s: when it came; minus infinity once it was sent back to the queue.
        target: tokens to compute before the next one can be generated.
        computed: of those, the ones that are in the KV cache; stale while it decodes.
        remaining: tokens still to generate; stale while it decodes.
        cancelled: its client left while it ran.
        base, ends_at, entered: place in the batch; ``entered`` is 0 outside of it.
    """

    __slots__ = (
        "base",
        "cancelled",
        "computed",
        "ends_at",
        "entered",
        "job",
        "queued_s",
        "remaining",
        "target",
    )

    def __init__(self, job: Job, now: float) -> None:
        self.blocks = self.shared = self.covered = 0
        self.cached = []
        self.job = job
        self.queued_s = now
        self.target = job.prompt_tokens
        self.remaining = job.output_tokens
        self.computed = self.base = self.ends_at = 0
        self.entered = 0
        self.cancelled = False


class DecodeBatch:
    """The members that gain one token per iteration.

    Attributes:
        count: how many.
        base_sum: sum of their bases.
        iteration: iterations completed.
        members: in order of admission.
    """

    __slots__ = (
        "_entries",
        "_phases",
        "_unit",
        "base_sum",
        "count",
        "ends",
        "iteration",
        "members",
    )

    def __init__(self, block_tokens: int) -> None:
        self.count = self.base_sum = self.iteration = 0
        self.members: dict[Member, None] = {}
        self._unit = block_tokens
        # Two cycles, so that any window of less than one is a slice.
        self._phases = [0] * (2 * block_tokens)
        self.ends: list[tuple[int, int, Member]] = []
        self._entries = 0

    @property
    def context(self) -> int:
        """KV tokens that the next iteration reads."""
        return self.base_sum + self.count * self.iteration

    def join(self, member: Member, context: int) -> None:
        """Add a member that will read ``context`` tokens in its first iteration."""
        base = member.base = context - self.iteration
        self.base_sum += base
        self.count += 1
        phase = (1 - base) % self._unit
        self._phases[phase] += 1
        self._phases[phase + self._unit] += 1
        self.members[member] = None
        entered = member.entered = self._entries = self._entries + 1
        ends_at = member.ends_at = self.iteration + member.remaining
        heappush(self.ends, (ends_at, entered, member))

    def leave(self, member: Member) -> None:
        """Take a member out."""
        base = member.base
        self.base_sum -= base
        self.count -= 1
        phase = (1 - base) % self._unit
        self._phases[phase] -= 1
        self._phases[phase + self._unit] -= 1
        del self.members[member]
        member.entered = 0

    def end_at(self, member: Member, iteration: int) -> None:
        """Let a member end earlier than its length says."""
        member.ends_at = iteration
        heappush(self.ends, (iteration, member.entered, member))

    def ended(self) -> list[Member]:
        """Take out every member whose last iteration is over, in order of admission."""
        ends, now = self.ends, self.iteration
        done: list[Member] = []
        while ends and ends[0][0] <= now:
            ends_at, entered, member = heappop(ends)
            if member.entered == entered and member.ends_at == ends_at:
                self.leave(member)
                done.append(member)
        return done

    def until_next_end(self) -> int:
        """Iterations until a member ends; at least one member is needed."""
        ends = self.ends
        while True:
            ends_at, entered, member = ends[0]
            if member.entered == entered and member.ends_at == ends_at:
                return ends_at - self.iteration
            heappop(ends)

    def growth(self, iterations: int) -> int:
        """KV blocks that the next ``iterations`` take."""
        unit = self._unit
        rest = iterations % unit
        if not rest:
            return self.count * (iterations // unit)
        at = self.iteration % unit
        if rest == iterations:
            return sum(self._phases[at : at + rest])
        return self.count * (iterations // unit) + sum(self._phases[at : at + rest])

    def next_growth(self) -> int:
        """KV blocks that the next iteration takes."""
        return self._phases[self.iteration % self._unit]

    def growth_at(self, later: int) -> int:
        """KV blocks that the iteration ``later`` after the next one takes."""
        return self._phases[(self.iteration + later) % self._unit]

    def furthest(self, blocks: int, iterations: int) -> int:
        """How many of the next ``iterations`` fit into ``blocks`` free KV blocks."""
        count, unit = self.count, self._unit
        if count * -(-iterations // unit) <= blocks:
            return iterations
        if blocks < 0:
            return 0
        cycles, left = divmod(blocks, count)
        at = self.iteration % unit
        steps = cycles * unit
        for phase in range(at, at + unit):
            left -= self._phases[phase]
            if left < 0:
                break
            steps += 1
        return min(steps, iterations)

    def grows(self, member: Member) -> bool:
        """Whether the next iteration takes a new KV block for ``member``."""
        return (member.base + self.iteration - 1) % self._unit == 0
