"""Mutants that survive because they change nothing that anybody promises."""

from __future__ import annotations

GATE = "router/queue/gate.py"
GLANCE = "router/queue/glance.py"
DESK = "router/queue/desk.py"
BREAKER = "router/health/breaker.py"
ROOM = "router/queue/class_room.py"
LEARNED = "telemetry/learned.py"
LANE = "router/policies/lane.py"
MEMORY = "router/gateway/memory.py"
_LOOKED_AT = "a glance that clears fewer: the others are looked at closely, with the same answer"
EXPLAINED: dict[tuple[str, str, str], str] = {
    (
        LEARNED,
        "MOST_BYTES: Final = 32 * 1024 * 1024",
        "1024 -> 1025",
    ): "a bound on nonsense, a thousandth higher",
    (
        "router/gateway/chunk_pipe.py",
        'if at < 0 or not body.endswith(b"}\\n\\n") or _DIGIT.search(ending):  # numbers change',
        "Lt -> LtE",
    ): "an event begins with its name, so never with these words",
    (
        "router/gateway/chunk_pipe.py",
        'if at < 0 or not body.endswith(b"}\\n\\n") or _DIGIT.search(ending):  # numbers change',
        "0 -> 1",
    ): "an event begins with its name, so never with these words",
    (
        "router/dispatcher.py",
        "if isinstance(decision, Wait) and patient:",
        "if -> if not",
    ): "a shortcut: where everybody is claimed, those behind hear the same one by one",
    (
        "router/gateway/chunk_pipe.py",
        "_LAST_BYTES = 128",
        "128 -> 129",
    ): "how far from the end is looked; nobody's events are that long there",
    (
        "telemetry/speeds.py",
        "if not all(0.0 <= cost < 1e3 for cost in astuple(self.prior)):",
        "1000.0 -> 1001.0",
    ): "a bound on nonsense, a thousandth higher",
    (
        "telemetry/speeds.py",
        "MOST_SPEEDS = 10_000",
        "10000 -> 10001",
    ): "a bound on nonsense, a ten-thousandth higher",
    (
        "telemetry/learned_file.py",
        "number += 1",
        "Add -> Sub",
    ): "another number in a name that is as free",
    (
        "router/gateway/chunk_pipe.py",
        "TRIES = 4",
        "4 -> 5",
    ): "when a stream is left on the long way, on which it is served as well",
    (
        LANE,
        "(self._seq_s + context_s) * stretch * (left if left < overlap else overlap)",
        "Lt -> LtE",
    ): "of two that are equal either is the lesser",
    (
        "router/policies/lanes.py",
        "TYPICAL_OUTPUT = LengthForecast(200.0, 400.0, square_tokens=70_000.0)",
        "200.0 -> 201.0",
    ): "another request is as typical",
    (
        LEARNED,
        "MOST_CELLS, MOST_MODELS, MOST_KNOWN = 16_384, 4_096, 64",
        "4096 -> 4097",
    ): "a bound on nonsense, a thousandth higher",
    (
        "telemetry/speeds.py",
        "and all(abs(value) <= MOST_VARIANCE for row in state.cov for value in row)",
        "LtE -> Lt",
    ): "a variance that is the bound to the last digit",
    (
        "telemetry/learned_file.py",
        'data = file.read(MOST_BYTES + 1) if facts.st_size <= MOST_BYTES else b""',
        "1 -> 2",
    ): "one byte too many is too many, as two are",
    (
        "telemetry/speeds.py",
        "pairs = zip(astuple(one), astuple(other), strict=True)",
        "True -> False",
    ): "two costs have as many parts",
    (MEMORY, "SLICE = 250", "250 -> 251"): "cells between two looks at requests",
    (
        GLANCE,
        "room = KV_LIMIT * view.kv_capacity_tokens - view.context_tokens",
        "Mult -> Div",
    ): "a glance that clears nobody: everybody is looked at closely, with the same answer",
    (
        GLANCE,
        "self.room_tokens = room - (1.0 - CLEAR) * view.kv_capacity_tokens",
        "Sub -> Add",
    ): "a guard against rounding, of a ten-thousandth of a token",
    (GLANCE, "CLEAR = 1.0 - 1e-9", "Sub -> Add"): "a guard against rounding, of a billionth",
    (GLANCE, "CLEAR = 1.0 - 1e-9", "1e-09 -> 1.000000001"): _LOOKED_AT,
    (
        GLANCE,
        "self.room_tokens = room - (1.0 - CLEAR) * view.kv_capacity_tokens",
        "1.0 -> 2.0",
    ): _LOOKED_AT,
    (GLANCE, "self.idle = held <= 0", "LtE -> Lt"): _LOOKED_AT,
    (GLANCE, "SMALL_TOKENS = 8_192", "8192 -> 8193"): "another request is small, and its bound",
    (GLANCE, "self._chunks_per_token = 1.0 / view.chunk_tokens", "1.0 -> 2.0"): _LOOKED_AT,
    (
        GLANCE,
        "self.small_prompt_s = cost.prefill_s + self._chunks_per_token * tau_s",
        "Mult -> Div",
    ): _LOOKED_AT,
    (
        GLANCE,
        "self.small_prompt_s += cost.pair_s * 0.5 * SMALL_TOKENS",
        "Mult -> Div",
    ): "by a half: " + _LOOKED_AT,
    (
        GLANCE,
        "return own_s <= demand.cap_s and own_s + demand.output * tau_s <= demand.e2e_s",
        "LtE -> Lt",
    ): _LOOKED_AT,
    (
        GLANCE,
        "self.room_tokens = room - (1.0 - CLEAR) * view.kv_capacity_tokens",
        "Mult -> Div",
    ): "a guard against rounding, of a ten-thousandth of a token",
    (GATE, "small_tau_s = demand.tau_s if needed <= SMALL_TOKENS else -math.inf", "LtE -> Lt"): (
        _LOOKED_AT
    ),
    (GATE, "seen.small_stretched_s <= small_tau_s", "LtE -> Lt"): _LOOKED_AT,
    (GATE, "and needed <= seen.room_tokens", "LtE -> Lt"): _LOOKED_AT,
    (
        GATE,
        "and (own_s := prompt * seen.small_prompt_s + seen.small_begin_s) <= cap_s",
        "LtE -> Lt",
    ): _LOOKED_AT,
    (
        GATE,
        "and (own_s := prompt * seen.small_prompt_s + seen.small_begin_s) <= cap_s",
        "Mult -> Div",
    ): _LOOKED_AT,
    (
        GATE,
        "and (may_end_late or own_s + output * seen.small_tau_s <= e2e_s)",
        "LtE -> Lt",
    ): _LOOKED_AT,
    (
        GATE,
        "and (may_end_late or own_s + output * seen.small_tau_s <= e2e_s)",
        "Mult -> Div",
    ): _LOOKED_AT,
    (
        "router/policies/crowd.py",
        "self.number += 1",
        "Add -> Sub",
    ): "crowds are told apart by their numbers, whatever they are",
    (
        "router/policies/crowd.py",
        "self.number += 1",
        "1 -> 2",
    ): "crowds are told apart by their numbers, whatever they are",
    (
        "router/policies/motley_account.py",
        'late = "; it should have begun by now" if lane.late_from_s < now else ""',
        "Lt -> LtE",
    ): "late by nothing",
    (
        "router/policies/lanes.py",
        "elif key < best.key:",
        "Lt -> LtE",
    ): "of two that are equal either is the first, and both are scored",
    (GLANCE, "self.output = max(request.forecast.mean_tokens, 1.0)", "1.0 -> 2.0"): _LOOKED_AT,
    (GLANCE, "self.needed = prompt + 0.5 * self.output", "0.5 -> 1.5"): _LOOKED_AT,
    (GLANCE, "self.half_pairs = 0.5 * prompt * prompt", "0.5 -> 1.5"): _LOOKED_AT,
    (
        GLANCE,
        "self.small_prompt_s += cost.pair_s * 0.5 * SMALL_TOKENS",
        "0.5 -> 1.5",
    ): _LOOKED_AT,
    (
        GLANCE,
        "limit_s = demand.tau_s + demand.of_idle * (self._alone_s + added_s)",
        "Add -> Sub",
    ): _LOOKED_AT,
    (
        GLANCE,
        "if demand.needed > self.room_tokens or tau_s * self._stretch > limit_s:",
        "Gt -> GtE",
    ): _LOOKED_AT,
    (
        GATE,
        "and (may_end_late or own_s + output * seen.small_tau_s <= e2e_s)",
        "Or -> And",
    ): _LOOKED_AT,
    (
        GATE,
        "if slo.ttft_s is not None and ttft_s > margin * slo.ttft_s:",
        "Gt -> GtE",
    ): "a prediction that is the target to the last digit",
    (
        GATE,
        "return slo.e2e_s is None or e2e_s <= margin * slo.e2e_s",
        "LtE -> Lt",
    ): "a prediction that is the target to the last digit",
    (
        GATE,
        "if (held > 0 or entry.urgent) and tau * self._stretch(view, now) > tpot_limit_s:",
        "Gt -> GtE",
    ): "a prediction that is the limit to the last digit",
    (
        DESK,
        "if slo.ttft_s is not None and ttft_s > margin * slo.ttft_s:",
        "Gt -> GtE",
    ): "a prediction that is the target to the last digit",
    (
        ROOM,
        "tag: tuple[float, int] = (0.0, 0)",
        "0.0 -> 1.0",
    ): "replaced by whatever lane it enters",
    (
        "solver/constraints.py",
        "return brought + numbers.background <= unknowns.load",
        "Add -> Sub",
    ): "the background is zero in every problem that is stated today (solver/figures.py)",
    (BREAKER, "self._probes = 0", "0 -> 1"): "numbers of probes only have to differ",
    (BREAKER, "self._probes += 1", "Add -> Sub"): "numbers of probes only have to differ",
    (BREAKER, "self._probes += 1", "1 -> 2"): "numbers of probes only have to differ",
    (
        BREAKER,
        "self._failures = self._config.failure_threshold - 1",
        "Sub -> Add",
    ): "one more failure opens it either way, and whatever else comes starts from zero",
    (
        ROOM,
        "if left_s > 1e-9:  # what rounding leaves, and work too small to count, is nothing",
        "Gt -> GtE",
    ): "a billionth of a second to the last digit",
    (ROOM, "if rank < best_rank:", "Lt -> LtE"): "of two lanes with the same rank either may go",
    (ROOM, "aged_share: float = 0.1,", "0.1 -> 1.1"): "a default that the desk never leaves to it",
    (
        ROOM,
        "aged_after_s: float = 60.0,",
        "60.0 -> 61.0",
    ): "a default that the desk never leaves to it",
    (
        ROOM,
        "if len(self._finish) > 2 * (len(entries) + _SPARE_TENANTS):",
        "Gt -> GtE",
    ): "tidies one tenant earlier",
    (
        ROOM,
        "left_s = self.backlog_s.pop(tenant, 0.0) - entry.work_s",
        "0.0 -> 1.0",
    ): "a tenant without backlog had work too small to count, and is not asked for",
    (
        ROOM,
        "start = max(self._virtual, self._finish.get(tenant, 0.0))",
        "0.0 -> 1.0",
    ): "every tag of a lane is later by the same second, until the lane is empty",
    (ROOM, "self._number += 1", "1 -> 2"): "numbers break ties by their order, whatever they are",
    (ROOM, "best_rank = (3, 0.0)", "3 -> 4"): "ranks are 0, 1 and 2",
    (ROOM, "best_rank = (3, 0.0)", "0.0 -> 1.0"): "ranks are 0, 1 and 2",
    (
        LANE,
        "if pain >= ask.least:",
        "GtE -> Gt",
    ): "nobody asks by how much it is above the least, and equal to it none is chosen",
    (
        "router/policies/crowd.py",
        "self.number = 0",
        "0 -> 1",
    ): "crowds are told apart by their numbers, whatever they are",
    (
        "router/deciding.py",
        "self._claimed.update({b.index: Taken(b, math.inf, 0) for b in options})",
        "0 -> 1",
    ): "nobody waits behind who waits for ever",
    (
        "router/class_dispatcher.py",
        "return group, (entry.slo.ttft_s or math.inf) if group == 1 else 0.0",
        "0.0 -> 1.0",
    ): "only those of one group are told apart by it, and there it is the same for all",
    (
        LEARNED,
        "if not (0.0 < tokens < 1e12 and 0.1 <= size / tokens <= 100.0):",
        "100.0 -> 101.0",
    ): "a bound on nonsense, a hundredth higher",
}
"""By file, line and change: why no test can or should notice."""
