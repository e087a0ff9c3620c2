"""What is promised of Motley in trouble, and the tests that hold it."""

from __future__ import annotations

from dataclasses import dataclass


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
            "Whatever a name server or a Kubernetes API answers, discovery goes on and no request "
            "is lost; a backend that comes back is known again.",
            (
                GATEWAY + "discovery/test_flapping.py::test_no_request_is_lost_while_a_name_flaps",
                GATEWAY + "discovery/test_flapping.py::test_what_was_learned_of_an_engine_comes_"
                "back_with_it",
                GATEWAY + "discovery/test_kubernetes_oddities.py::test_whatever_the_api_server_"
                "answers_the_search_goes_on",
            ),
        ),
        Promise(
            "A batch whose files are damaged, or whose key ends, costs no other batch anything; "
            "its owner is told.",
            (
                GATEWAY + "batch/test_damage.py::test_a_damaged_line_is_told_taken_out_and_done_"
                "again",
                GATEWAY + "batch/test_damage.py::test_the_rest_of_a_batch_whose_key_ends_is_"
                "refused_line_by_line",
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
            "All of it with vLLM, SGLang and llama.cpp as they are: killed cores, crash loops, "
            "frozen workers, streams that hang after SIGTERM, errors inside a 200.",
            (
                "tests/engines/test_fleet.py",
                "tests/engines/test_deaths.py",
                "tests/engines/test_continuation.py",
                "tests/engines/test_llamacpp.py",
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
