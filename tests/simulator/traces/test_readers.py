"""Every published format, as its authors write it, becomes the same kind of request."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from router.domain.errors import TraceError, UnknownNameError
from simulator.traces.detect import detect_format, formats
from simulator.traces.read import Window, load_trace, stream_trace

AZURE_2023 = """TIMESTAMP,ContextTokens,GeneratedTokens
2023-11-16 18:15:46.6805900,374,44
2023-11-16 18:15:50.9951690,396,109
2023-11-16 18:15:51.2224670,879,55"""

AZURE_2024 = """TIMESTAMP,ContextTokens,GeneratedTokens
2024-05-10 23:59:59.500000+00:00,2162,5
2024-05-11 00:00:00+00:00,2399,6
"""

BURSTGPT = """Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type
5,ChatGPT,472,18,490,Conversation log
45,GPT-4,1087,0,1087,API log
118,ChatGPT,417,276,693,Conversation log
"""

MOONCAKE = """{"timestamp": 0, "input_length": 1200, "output_length": 6, "hash_ids": [46, 47, 48]}
{"timestamp": 3000, "input_length": 1024, "output_length": 9, "hash_ids": [46, 47]}
"""

BAILIAN = """{"chat_id": 7, "parent_chat_id": -1, "timestamp": 61.1, "input_length": 40, \
"output_length": 132, "type": "text", "turn": 1, "hash_ids": [10, 11, 12]}
{"chat_id": 8, "parent_chat_id": 7, "timestamp": 70.1, "input_length": 64, \
"output_length": 12, "type": "text", "turn": 2, "hash_ids": [10, 11, 13, 14]}
{"chat_id": 9, "parent_chat_id": 8, "timestamp": 80.1, "input_length": 48, \
"output_length": 12, "type": "search", "turn": 3, "hash_ids": [11, 10, 13]}
"""

SHAREGPT = json.dumps(
    [
        {
            "id": "a",
            "conversations": [
                {"from": "human", "value": "x" * 400},
                {"from": "gpt", "value": "y" * 80},
            ],
        },
        {"id": "b", "conversations": [{"from": "human", "value": "only a question"}]},
    ]
)

VLLM_BENCH = json.dumps(
    {
        "date": "20260102-030405",
        "model_id": "m",
        "request_rate": 2.0,
        "input_lens": [100, 200, 300],
        "output_lens": [3, 2, 0],
        "ttfts": [0.1, 0.2, 0.0],
        "start_times": [10.0, 11.5, 12.0],
        "errors": ["", "", "Internal Server Error"],
    }
)

GUIDELLM = json.dumps(
    {
        "metadata": {"version": 1},
        "benchmarks": [
            {
                "requests": {
                    "successful": [
                        {
                            "request_id": "r",
                            "request_start_time": 1747.5,
                            "prompt_tokens": 128,
                            "output_tokens": 64,
                        },
                        {"start_time": 1748.0, "prompt_tokens": 256, "output_tokens": 32},
                    ],
                    "errored": [{"request_start_time": 1749.0}],
                }
            }
        ],
    }
)

CSV = """arrival_s,input_tokens,output_tokens,model,class,client_id,session,prefix_hashes
0.5,32,10,llama,interactive,alice,s1,1 2
2.0,100,20,,bulk,bob,,
"""

JSONL = """{"arrival_s": 0.5, "input_tokens": 32, "output_tokens": 10, "tenant": "alice", \
"prefix_hashes": [1, 2], "prefix_block_tokens": 16}
{"arrival_s": 2.0, "input_tokens": 100, "output_tokens": 20}
"""

DECISION_LOG = """{"call": "open", "policy": {"name": "motley"}}
{"call": "dispatch", "now": 5.0, "args": {"request": {"request_id": "a", "model": "m", \
"arrival_s": 5.0, "prompt_tokens": 40, "max_tokens": 64, "slo_class": "interactive", \
"tenant": "t", "session": "s", "prefix_hashes": [1, 2], "prefix_block_tokens": 16}}, \
"answer": {"assign": "a100-80-0"}}
{"call": "dispatch", "now": 6.0, "args": {"request": {"request_id": "b", "model": "m", \
"arrival_s": 6.0, "prompt_tokens": 9, "max_tokens": null, "slo_class": "bulk", \
"tenant": "", "session": "", "prefix_hashes": [], "prefix_block_tokens": 0}}, \
"answer": {"reject": "queue_full", "retry_after_s": 15}}
{"call": "first_token", "now": 6.5, "args": {"request_id": "a"}}
{"call": "complete", "now": 7.0, "args": {"request_id": "a", "output_tokens": 12, \
"prompt_tokens": 42, "cached_tokens": 0}}
"""

SAMPLES = {
    "decision-log": DECISION_LOG,
    "azure": AZURE_2023,
    "burstgpt": BURSTGPT,
    "mooncake": MOONCAKE,
    "bailian": BAILIAN,
    "vllm-bench": VLLM_BENCH,
    "guidellm": GUIDELLM,
    "csv": CSV,
    "jsonl": JSONL,
    "sharegpt": SHAREGPT,
}


def write(folder: Path, text: str, name: str = "trace.dat") -> Path:
    path = folder / name
    path.write_text(text)
    return path


@pytest.mark.parametrize("name", SAMPLES)
def test_the_format_is_told_by_the_content_not_by_the_name(name: str, tmp_path: Path) -> None:
    assert detect_format(write(tmp_path, SAMPLES[name])) == name


@pytest.mark.parametrize("name", SAMPLES)
def test_gzip_is_seen_through(name: str, tmp_path: Path) -> None:
    packed = tmp_path / "trace.gz"
    packed.write_bytes(gzip.compress(SAMPLES[name].encode()))

    plain, _ = load_trace(write(tmp_path, SAMPLES[name]))
    unpacked, _ = load_trace(packed)

    assert list(unpacked.records()) == list(plain.records())


def test_azure_2023_has_seven_digit_fractions_and_no_last_newline(tmp_path: Path) -> None:
    trace, report = load_trace(write(tmp_path, AZURE_2023))

    assert trace.arrival_s.tolist() == pytest.approx([0.0, 4.314579, 4.541877], abs=1e-9)
    assert trace.input_tokens.tolist() == [374, 396, 879]
    assert trace.output_tokens.tolist() == [44, 109, 55]
    assert report.summary() == ""


def test_azure_2024_has_zones_sometimes_no_fraction_and_crosses_midnight(tmp_path: Path) -> None:
    trace, _ = load_trace(write(tmp_path, AZURE_2024))

    assert trace.arrival_s.tolist() == [0.0, 0.5]


def test_burstgpt_counts_calls_that_failed_when_it_was_recorded(tmp_path: Path) -> None:
    trace, report = load_trace(write(tmp_path, BURSTGPT))

    assert trace.arrival_s.tolist() == [0.0, 113.0]
    assert (report.unanswered, report.malformed) == (1, 0)
    assert "1 request(s) without an answer" in report.summary()


def test_mooncake_counts_milliseconds_and_512_tokens_per_id(tmp_path: Path) -> None:
    trace, _ = load_trace(write(tmp_path, MOONCAKE))

    assert trace.arrival_s.tolist() == [0.0, 3.0]
    assert trace.prefix_block_tokens.tolist() == [512, 512]
    assert trace.prefix_hashes(0) == trace.prefix_hashes(1) == (46, 47)  # 48 is a partial block


def test_bailian_chains_block_ids_and_names_the_session_after_the_first_turn(
    tmp_path: Path,
) -> None:
    trace, _ = load_trace(write(tmp_path, BAILIAN))
    first, second, third = (trace.prefix_hashes(i) for i in range(3))

    assert trace.prefix_block_tokens[0] == 16
    assert len(first) == 2  # 40 tokens are two full blocks
    assert second[:2] == first
    assert not set(third) & set(second)  # the same ids in another order are another prefix
    assert [trace.session[i] for i in range(3)] == ["chat-7"] * 3
    assert trace.tenant.used() == ["text", "search"]


def test_vllm_bench_replays_start_times_and_leaves_failed_requests_out(tmp_path: Path) -> None:
    trace, report = load_trace(write(tmp_path, VLLM_BENCH))

    assert trace.arrival_s.tolist() == [0.0, 1.5]
    assert report.unanswered == 1


def test_guidellm_reads_old_and_new_field_names(tmp_path: Path) -> None:
    trace, report = load_trace(write(tmp_path, GUIDELLM))

    assert trace.arrival_s.tolist() == [0.0, 0.5]
    assert trace.input_tokens.tolist() == [128, 256]
    assert report.unanswered == 1


def test_sharegpt_gives_lengths_at_four_characters_a_token_and_no_arrivals(tmp_path: Path) -> None:
    trace, report = load_trace(write(tmp_path, SHAREGPT))

    assert (trace.input_tokens.tolist(), trace.output_tokens.tolist()) == ([100], [20])
    assert not trace.timed
    assert report.malformed == 1


def test_own_format_keeps_every_optional_column(tmp_path: Path) -> None:
    trace, _ = load_trace(write(tmp_path, CSV))
    first, second = trace.records()

    assert (first.model, first.slo_class, first.tenant, first.session) == (
        "llama",
        "interactive",
        "alice",
        "s1",
    )
    assert (first.prefix_hashes, first.prefix_block_tokens) == ((1, 2), 16)
    assert (second.model, second.tenant, second.prefix_hashes) == ("", "bob", ())


def test_a_decision_log_replays_what_completed_and_counts_the_rest(tmp_path: Path) -> None:
    trace, report = load_trace(write(tmp_path, DECISION_LOG))

    (request,) = trace.records()
    assert (request.input_tokens, request.output_tokens, request.max_tokens) == (42, 12, 64)
    assert (request.model, request.tenant, request.session) == ("m", "t", "s")
    assert (request.prefix_hashes, request.prefix_block_tokens) == ((1, 2), 16)
    assert report.unanswered == 1


def test_parquet_rows_are_the_csv_rows(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    table = pa.table(
        {
            "arrival_s": [0.5, 2.0],
            "input_tokens": [32, 100],
            "output_tokens": [10, 20],
            "prefix_hashes": [[1, 2], None],
        }
    )
    path = tmp_path / "trace.parquet"
    pq.write_table(table, path)

    trace, _ = load_trace(path)

    assert trace.arrival_s.tolist() == [0.0, 1.5]
    assert trace.prefix_hashes(0) == (1, 2)
    assert trace.prefix_hashes(1) == ()


def test_lengths_without_arrivals_are_an_untimed_trace(tmp_path: Path) -> None:
    trace, _ = load_trace(write(tmp_path, "input_tokens,output_tokens\n10,20\n30,40\n"))

    assert not trace.timed
    assert trace.input_tokens.tolist() == [10, 30]


def test_a_forced_format_overrules_detection(tmp_path: Path) -> None:
    path = write(tmp_path, "a,b\n1,2\n")

    with pytest.raises(TraceError, match="column 'TIMESTAMP'"):
        load_trace(path, format_name="azure")
    with pytest.raises(UnknownNameError, match=r"'azur'.*Did you mean 'azure'"):
        load_trace(path, format_name="azur")


def test_every_listed_format_has_a_reader() -> None:
    assert set(SAMPLES) <= set(formats())


# --- bad input ---------------------------------------------------------------------------------


def test_a_malformed_line_is_named_and_counted_and_the_rest_kept(tmp_path: Path) -> None:
    broken = AZURE_2023.replace("2023-11-16 18:15:50.9951690,396,109", "yesterday,396")

    trace, report = load_trace(write(tmp_path, broken))

    assert len(trace) == 2
    assert report.malformed == 1
    assert "trace.dat:3: 2 columns instead of 3" in report.summary()


def test_strict_stops_at_the_first_malformed_line(tmp_path: Path) -> None:
    path = write(tmp_path, MOONCAKE + '{"timestamp": 3, "input_length": "many"}\n')

    with pytest.raises(TraceError, match=r":3: .*input_length"):
        load_trace(path, strict=True)


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ("1.0,-5,10", "at least 1 token, not -5"),
        ("1.0,5,-10", "cannot have -10 tokens"),
        ("nan,5,10", "not a finite number"),
        ("1.0,5.5,10", "not a whole number"),
        ("1.0,99999999999,10", "no request has more than"),
    ],
)
def test_impossible_numbers_are_malformed(row: str, problem: str, tmp_path: Path) -> None:
    text = f"arrival_s,input_tokens,output_tokens\n0.0,10,10\n{row}\n"

    trace, report = load_trace(write(tmp_path, text))

    assert len(trace) == 1
    assert report.malformed == 1
    assert problem in report.messages[0]


@pytest.mark.parametrize("text", ["", "\n\n", "arrival_s,input_tokens,output_tokens\n"])
def test_an_empty_trace_is_an_error(text: str, tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="empty"):
        load_trace(write(tmp_path, text))


def test_a_trace_of_nothing_but_rubbish_says_what_is_wrong_with_it(tmp_path: Path) -> None:
    text = "arrival_s,input_tokens,output_tokens\nx,1,1\ny,2,2\n"

    with pytest.raises(TraceError, match=r"2 malformed line\(s\).*:2: "):
        load_trace(write(tmp_path, text))


def test_something_that_is_no_trace_is_refused_with_the_known_formats(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match=r"looks like no trace format.*azure"):
        load_trace(write(tmp_path, "dear diary, today"))


def test_an_unknown_column_is_refused_with_the_near_name(tmp_path: Path) -> None:
    text = "arrival_s,input_tokens,output_tokens,clas\n0,1,1,bulk\n"

    with pytest.raises(TraceError, match=r"unknown field 'clas'.*did you mean 'class'"):
        load_trace(write(tmp_path, text))


def test_a_missing_file_and_damaged_gzip_are_clear(tmp_path: Path) -> None:
    damaged = tmp_path / "t.gz"
    damaged.write_bytes(gzip.compress(AZURE_2023.encode())[:-12])

    with pytest.raises(TraceError, match="no such file"):
        load_trace(tmp_path / "absent.csv")
    with pytest.raises(TraceError, match="gzip stream is damaged"):
        load_trace(damaged)


def test_a_json_array_that_is_cut_off_says_at_which_item(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match=r":2: the JSON array is malformed or cut off"):
        load_trace(write(tmp_path, '[{"input_tokens": 1, "output_tokens": 1}, {"input'))


# --- windows and memory ------------------------------------------------------------------------


def test_a_window_counts_from_its_own_start(tmp_path: Path) -> None:
    rows = "".join(f"{t},10,10\n" for t in range(100))
    path = write(tmp_path, "arrival_s,input_tokens,output_tokens\n" + rows)

    trace, _ = load_trace(path, window=Window(20.0, 5.0))

    assert trace.arrival_s.tolist() == [0.0, 1.0, 2.0, 3.0, 4.0]


def test_a_window_nobody_arrives_in_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="between 900 s and 910 s"):
        load_trace(write(tmp_path, AZURE_2023), window=Window(900.0, 10.0))


def test_requests_out_of_order_are_sorted(tmp_path: Path) -> None:
    text = "arrival_s,input_tokens,output_tokens\n0,1,1\n9,2,2\n5,3,3\n"

    trace, _ = load_trace(write(tmp_path, text))

    assert trace.input_tokens.tolist() == [1, 3, 2]


def test_requests_earlier_than_the_first_line_are_not_lost(tmp_path: Path) -> None:
    text = "arrival_s,input_tokens,output_tokens\n3,3,1\n1,1,1\n2,2,1\n"
    path = write(tmp_path, text)

    trace, _ = load_trace(path)
    part, _ = load_trace(path, window=Window(0.0, 0.5))

    assert trace.input_tokens.tolist() == [1, 2, 3]
    assert trace.arrival_s.tolist() == [0.0, 1.0, 2.0]
    assert part.input_tokens.tolist() == [1, 2, 3]  # a window is counted from the first line


def test_streaming_reads_no_further_than_it_is_asked(tmp_path: Path) -> None:
    """Constant memory: the rubbish far down the file is not touched yet."""
    good = "0.0,1,1\n" * 100_000
    path = write(tmp_path, "arrival_s,input_tokens,output_tokens\n" + good + "rubbish\n")

    records, report = stream_trace(path, strict=True)

    assert next(records).input_tokens == 1
    assert report.records == 1


OWN = [
    ("semicolons", "arrival_s;input_tokens;output_tokens\n0;100;10\n1.5;200;20\n"),
    ("tabs", "arrival_s\tinput_tokens\toutput_tokens\n0\t100\t10\n1.5\t200\t20\n"),
    ("milliseconds", "arrival_ms,prompt_len,output_len\n7000,100,10\n8500,200,20\n"),
    (
        "dates",
        "Timestamp,prompt_tokens,completion_tokens\n"
        "2024-05-10T23:59:59.000Z,100,10\n2024-05-11 00:00:00.5,200,20\n",
    ),
    (
        "JSON",
        '{"time": "2024-05-10 23:59:59", "input_len": 100, "output_len": 10}\n'
        '{"output_len": 20, "input_len": 200, "time": "2024-05-11 02:00:00.5+02:00"}\n',
    ),
]


@pytest.mark.parametrize("text", [text for _, text in OWN], ids=[name for name, _ in OWN])
def test_a_file_of_ones_own_may_be_written_as_others_write_them(tmp_path: Path, text: str) -> None:
    path = tmp_path / "own"
    path.write_text(text)

    trace, report = load_trace(path)

    assert (list(trace.arrival_s), report.malformed, report.timed) == ([0.0, 1.5], 0, True)
    assert list(trace.input_tokens) == [100, 200]
    assert list(trace.output_tokens) == [10, 20]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("when,prompt,completion\n0,1,1\n", "begins with the line arrival_s,input_tokens,output"),
        ("timestamp,input_len,output_len\n1715299200000,9,1\n", "arrival_s or arrival_ms"),
        ("arrival_s,input_tokens,prompt_len,output_len\n0,1,2,3\n", "gives input_tokens a second"),
        (
            "arrival_s,input_tokens,input_tokens,output_len\n0,1,2,3\n",
            "gives input_tokens a second",
        ),
        ("arrival_s,input_tokens,output_len,notes\n0,1,2,x\n", "unknown field 'notes'"),
    ],
)
def test_what_may_mean_two_things_is_not_guessed(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "own.csv"
    path.write_text(text)

    with pytest.raises(TraceError, match=said):
        load_trace(path)
