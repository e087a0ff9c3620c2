"""Write ``RELIABILITY.md`` anew: ``python -m benchmarks.reliability [FIGURE ...]``.

The table of promises comes from ``PROMISES`` below, each with the tests that hold it. Figures are
measured by commands of their own, several at once (``ALONE`` before the others, since they tell
time by the wall), and stand between markers; without names all are measured again (half an hour on
two quiet cores; the name ``none`` writes the table only).
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "RELIABILITY.md"
ALONE = ("overload-http",)


@dataclass(frozen=True, slots=True)
class Promise:
    """One promise.

    Attributes:
        says: what is promised.
        tests: that fail when it is broken: ``file`` or ``file::test``.
    """

    says: str
    tests: tuple[str, ...]


FIRE = "tests/fire/"
GATEWAY = "tests/router/gateway/"
PROMISES = {
    "Requests": (
        Promise(
            "A fault of an engine before the first byte of its answer is invisible to the client "
            "while another engine can serve: refused, reset, hung, garbage, 500, 503, 429, wrong "
            "model. Streamed or not, one client or 500 at once.",
            (
                FIRE + "test_engine_faults.py::test_a_fault_beside_a_healthy_engine_costs_what_had"
                "_begun_and_nothing_else",
                FIRE + "test_engine_faults.py::test_500_at_once_meet_a_fault",
            ),
        ),
        Promise(
            "A fault after the first byte is never taken for a whole answer: the stream says why, "
            "and is cut.",
            (FIRE + "test_engine_faults.py::test_a_fault_alone_is_told_truly",),
        ),
        Promise(
            "Every request ends once: completed, failed with an error that the client saw, or "
            "cancelled by the client. Clients, counters, record and engines agree to the last one.",
            (FIRE + "test_zero_loss.py::test_four_books_agree",),
        ),
        Promise(
            "A client that leaves, whatever its request was doing, frees its engine and leaves "
            "nothing behind; so does one that takes nothing for a minute; a slow one gets "
            "everything.",
            (
                FIRE + "test_client_faults.py::test_a_client_that_leaves_leaves_nothing",
                FIRE + "test_hand_over.py::test_a_client_that_leaves_at_the_hand_over_leaves_"
                "nothing",
                FIRE + "test_hand_over.py::test_a_client_that_leaves_when_its_place_is_taken_"
                "leaves_nothing",
                FIRE + "test_client_faults.py::test_a_client_that_takes_nothing_is_let_go",
                FIRE + "test_client_faults.py::test_a_slow_client_gets_everything_and_costs_the_"
                "backend_nothing",
            ),
        ),
        Promise(
            "Only an engine's own faults open its breaker; one that dies in mid-answer every time "
            "stays out for longer and longer.",
            (
                FIRE + "test_engine_faults.py::test_a_fault_alone_is_told_truly",
                "tests/router/test_dispatcher_health.py::test_a_probe_that_dies_after_its_first_"
                "token_opens_it_again",
            ),
        ),
    ),
    "Surroundings": (
        Promise(
            "Redis that dies, is cut off, comes late, drops everybody or forgets everything costs "
            "no request; its return is noticed.",
            (
                FIRE
                + "test_surroundings.py::test_redis_in_trouble_costs_no_request_and_comes_back",
                GATEWAY + "shared/test_sharing.py::test_a_redis_that_has_forgotten_everything_is_"
                "reminded",
            ),
        ),
        Promise(
            "A planner that crashes, hangs or talks nonsense changes no price and holds up nobody.",
            (
                FIRE + "test_surroundings.py::test_a_planner_that_talks_nonsense_changes_no_price",
                FIRE + "test_surroundings.py::test_a_planner_that_hangs_holds_nobody_up",
            ),
        ),
        Promise(
            "Clocks may jump and names may not resolve: what can be served is served.",
            (
                FIRE + "test_surroundings.py::test_the_wall_clock_may_jump",
                FIRE + "test_surroundings.py::test_a_machine_that_slept_ends_what_is_too_late_and_"
                "goes_on",
                FIRE + "test_surroundings.py::test_a_name_server_that_comes_and_goes_costs_retries"
                "_and_no_answers",
            ),
        ),
        Promise(
            "A full disk costs records, which are counted, and never a request.",
            (
                FIRE + "test_processes.py::test_a_full_disk_costs_records_and_never_a_request",
                "tests/telemetry/test_recorder.py::test_half_a_file_takes_no_room_and_its_rows_come"
                "_with_the_next",
            ),
        ),
    ),
    "Processes": (
        Promise(
            "SIGTERM finishes what is under way, and the record is whole.",
            (FIRE + "test_processes.py::test_sigterm_under_load_finishes_what_it_has",),
        ),
        Promise(
            "SIGKILL makes no answer look whole; it costs rows that were not flushed yet (1 s).",
            (
                FIRE + "test_processes.py::test_sigkill_under_load_is_no_success_for_anybody_and_no"
                "_end_for_the_record",
            ),
        ),
        Promise(
            "Reloading under load drops nothing; a bad file changes nothing.",
            (FIRE + "test_processes.py::test_reloads_under_load_drop_nothing",),
        ),
        Promise(
            "A worker process that dies takes its own requests with it and no others, and is "
            "started again.",
            (
                FIRE + "test_processes.py::test_a_worker_that_dies_takes_its_own_requests_and_no_"
                "others",
            ),
        ),
    ),
    "Load": (
        Promise(
            "At three times the capacity goodput stays within a tenth of its peak, interactive "
            "requests keep their targets while bulk is shed, and all is well again seconds after.",
            (FIRE + "test_overload.py::test_three_times_the_capacity",),
        ),
        Promise(
            "Under constant churn memory, file descriptors and added latency stay flat.",
            (
                FIRE + "test_soak.py::test_two_minutes_of_churn_leave_everything_flat",
                "tests/telemetry/test_soak.py::test_a_million_requests_leave_memory_flat",
            ),
        ),
    ),
    "Input": (
        Promise(
            "No bytes of a client, an engine, a configuration or a trace raise anything but a "
            "refusal in the one shape.",
            (
                "tests/fuzz/test_targets.py::test_seeds_and_mutations",
                "tests/fuzz/test_targets.py::test_atheris_finds_nothing",
                GATEWAY + "test_raw_fuzz.py::test_mutilated_requests",
                GATEWAY + "test_openapi_fuzz.py::test_the_document_describes_what_is_served",
            ),
        ),
        Promise(
            "Dispatcher, queues, breaker and prefix index follow their models under any sequence "
            "of calls, with service classes and without; the fast simulator does what the plain "
            "one does.",
            (
                "tests/properties/test_dispatcher_machine.py",
                "tests/properties/test_class_dispatcher_machine.py",
                "tests/properties/test_class_room_machine.py",
                "tests/properties/test_models.py",
                "tests/simulator/replica/test_fast_equals_exact.py",
            ),
        ),
        Promise(
            "What the threat model says.",
            (
                "tests/security/test_every_route.py",
                "tests/security/test_keys_and_limits.py",
                "tests/security/test_injection.py",
                "tests/security/test_secrets.py",
                "tests/security/test_static.py",
                "tests/security/test_semgrep.py",
            ),
        ),
    ),
    "Real engines": (
        Promise(
            "All of it with vLLM and SGLang as they are: killed cores, crash loops, frozen "
            "workers, streams that hang after SIGTERM, errors inside a 200.",
            (
                "tests/engines/test_fleet.py",
                "tests/engines/test_deaths.py",
                "tests/engines/test_continuation.py",
            ),
        ),
    ),
}


def table() -> str:
    """Promises and the tests that hold them."""
    rows = []
    for chapter, promises in PROMISES.items():
        rows += [f"### {chapter}", "", "| Promise | Held by |", "|---|---|"]
        for promise in promises:
            held = "<br>".join(f"`{test}`" for test in promise.tests)
            rows.append(f"| {promise.says} | {held} |")
        rows.append("")
    return "\n".join(rows).rstrip()


def named_tests() -> list[str]:
    """Every test that is named."""
    return [t for promises in PROMISES.values() for one in promises for t in one.tests]


# Figures


def run(*words: str, codes: Sequence[int] = (0,)) -> str:
    """Standard output of a command in the repository's root."""
    program = {"python": sys.executable}.get(words[0], words[0])
    done = subprocess.run(
        [program, *words[1:]], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode not in codes:
        sys.exit(f"{' '.join(words)}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}")
    return done.stdout


def soak(minutes: float) -> str:
    command = f"python -m tests.fire.soak --minutes {minutes:g}"
    return told_of_soak(json.loads(run(*command.split(), codes=(0, 1))), command)


def told_of_soak(told: dict[str, Any], command: str) -> str:
    """A table of slopes, and what they came from."""
    ends = ", ".join(f"{count} {end}" for end, count in told["ends"].items())
    verdict = "; ".join(told["faults"]) or "nothing grows"
    rows = [
        f"| {name} | {one['median']:.4g} | {one['per_min']:+.3g} | {one['growth']:+.1%} "
        f"| {one['least_growth']:+.1%} |"
        for name, one in told["trends"].items()
    ]
    return "\n".join(
        (
            f"{told['requests']} requests in {told['minutes']:g} minutes ({ends}): {verdict}.",
            "",
            "| after the warm-up | median | slope, per minute | growth in all | at least |",
            "|---|--:|--:|--:|--:|",
            *rows,
            "",
            "Memory in MB, latency in ms; *at least* is the lower end of the slope's 95 % "
            "interval. Added latency is that of a request through the gateway less that of one "
            "sent to the same engine directly, taken in pairs. Clients, engines and gateway "
            "share one process; "
            f"{told['steal']:.0%} of the machine's CPU time went to its neighbours. `{command}`",
        )
    )


def mutation() -> str:
    command = "python -m tests.mutation --sample 80 --seed 3"
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "score.json")
        run(*command.split(), "--json", str(file), codes=(0, 1))
        return told_of_mutants(json.loads(file.read_text()), command)


def told_of_mutants(score: dict[str, Any], command: str) -> str:
    parts = ", ".join(f"{name} {killed}" for name, killed in score["by_target"].items())
    caught = score["tried"] - score["survived"] - score["explained"]
    return (
        f"{caught} of {score['tried']} mutants are noticed, {score['explained']} change nothing "
        f"that can be told (`tests/mutation/explained.py`), {score['survived']} survive: {parts}. "
        f"Seed {score['seed']}. `{command}`"
    )


def fuzz() -> str:
    command = "python -m tests.fuzz --seconds 20"
    said = run(*command.split()).strip().replace("\n", "; ")
    return f"{said}. `{command}`"


def overload() -> str:
    command = "python -m benchmarks.policies.overload"
    return f"{run(*command.split()).strip()}\n\n`{command}`"


def overload_http() -> str:
    command = "python -m tests.fire.overload --seeds 3"
    return f"{run(*command.split()).strip()}\n\n`{command}`"


def figures(minutes: float) -> dict[str, Callable[[], str]]:
    return {
        "overload": overload,
        "overload-http": overload_http,
        "soak": lambda: soak(minutes),
        "fuzz": fuzz,
        "mutation": mutation,
    }


def placed(text: str, name: str, body: str) -> str:
    """The page with this block replaced."""
    pattern = re.compile(f"(<!-- begin:{name} -->\n).*?(<!-- end:{name} -->)", re.DOTALL)
    return pattern.sub(lambda found: found[1] + body + "\n" + found[2], text)


def main() -> None:
    known = [*figures(0.0), "none"]
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("figures", nargs="*", metavar="FIGURE", help=f"of: {', '.join(known)}")
    parser.add_argument("--minutes", type=float, default=20.0, help="of the soak")
    parser.add_argument("--at-once", type=int, default=4, help="figures measured side by side")
    options = parser.parse_args()
    commit = run("git", "rev-parse", "--short", "HEAD").strip()
    measure = figures(options.minutes)
    PAGE.write_text(placed(PAGE.read_text("utf-8"), "promises", table()), "utf-8")
    wanted = [name for name in options.figures or measure if name != "none"]

    def place(name: str, body: str) -> None:
        text = placed(PAGE.read_text("utf-8"), name, f"{body}\n\n<sub>at commit {commit}</sub>")
        PAGE.write_text(text, "utf-8")
        print(f"RELIABILITY: {name}", flush=True)

    for name in wanted:
        if name in ALONE:
            place(name, measure[name]())
    with ThreadPoolExecutor(options.at_once) as pool:
        running = {pool.submit(measure[name]): name for name in wanted if name not in ALONE}
        for done in as_completed(running):
            place(running[done], done.result())


if __name__ == "__main__":
    main()
