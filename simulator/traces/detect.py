"""Which format a trace file has: told by its content, never by its name."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from pathlib import Path

from router.domain.errors import TraceError, UnknownNameError
from simulator.traces.azure import COLUMNS as AZURE_COLUMNS
from simulator.traces.azure import read_azure
from simulator.traces.bailian import read_bailian
from simulator.traces.burstgpt import COLUMNS as BURSTGPT_COLUMNS
from simulator.traces.burstgpt import read_burstgpt
from simulator.traces.decision_log import read_decision_log
from simulator.traces.directory import JOURNAL, read_directory
from simulator.traces.fields import OWN_HEADER, any_known
from simulator.traces.generic import read_csv, read_jsonl, read_parquet, separator
from simulator.traces.mooncake import read_mooncake
from simulator.traces.parsing import Numbered, shorten
from simulator.traces.record import ReadReport
from simulator.traces.results import read_guidellm, read_vllm_bench
from simulator.traces.sharegpt import read_sharegpt
from simulator.traces.source import Line, read_items, read_lines, sniff

Reader = Callable[[Path, ReadReport], Iterator[Numbered]]

_ITEM_KEYS = (
    # The first key that an object has decides.
    ("call", "decision-log"),
    ("conversations", "sharegpt"),
    ("chat_id", "bailian"),
    ("hash_ids", "mooncake"),
    ("input_length", "mooncake"),
    ("input_lens", "vllm-bench"),
    ("benchmarks", "guidellm"),
)


def formats() -> dict[str, Reader]:
    """Every format that can be forced with ``--format``, and its reader."""
    return {
        "azure": _by_line(read_azure),
        "azure2023": _by_line(read_azure),
        "azure2024": _by_line(read_azure),
        "burstgpt": _by_line(read_burstgpt),
        "mooncake": _by_line(read_mooncake),
        "bailian": _by_line(read_bailian),
        "sharegpt": _by_item(read_sharegpt),
        "vllm-bench": read_vllm_bench,
        "guidellm": read_guidellm,
        "decision-log": _by_line(read_decision_log),
        "csv": _by_line(read_csv),
        "jsonl": _by_line(read_jsonl),
        "json": _by_item(read_jsonl),
        "parquet": read_parquet,
    }


def reader_for(path: Path, forced: str | None = None) -> tuple[str, Reader]:
    """Return the name of a file's format and its reader; a directory is read as one trace.

    Raises:
        UnknownNameError: ``forced`` is no format.
        TraceError: the file cannot be read, is empty, or looks like nothing known.
    """
    if path.is_dir():
        return "directory", lambda folder, report: read_directory(
            folder,
            report,
            lambda file: reader_for(file, "jsonl" if file.suffix == JOURNAL else forced)[1],
        )
    readers = formats()
    name = forced or detect_format(path)
    if name not in readers:
        raise UnknownNameError("trace format", name, readers)
    return name, readers[name]


def detect_format(path: Path) -> str:
    """Return the format's name.

    Raises:
        TraceError: the file cannot be read, is empty, or looks like nothing known.
    """
    head = sniff(path)
    if head.startswith(b"PAR1"):
        return "parquet"
    text = head.decode("utf-8-sig", errors="replace").lstrip()
    if not text:
        raise TraceError("the file is empty", path=str(path))
    if text.startswith("["):
        return _detect_item(text[1:].lstrip()) or "json"
    if text.startswith("{"):
        return _detect_item(text) or "jsonl"
    return _detect_csv(text.splitlines()[0], path)


def _detect_csv(header: str, path: Path) -> str:
    cells = next(csv.reader([header], delimiter=separator(header)))
    names = {name.strip().lower() for name in cells}
    if {name.lower() for name in AZURE_COLUMNS} <= names:
        return "azure"
    if {name.lower() for name in BURSTGPT_COLUMNS} <= names:
        return "burstgpt"
    if any_known(names):
        return "csv"
    raise TraceError(
        f"looks like no trace format ({shorten(header)}); a CSV of your own begins with the line "
        f"{OWN_HEADER}; if it is a known format, name it with --format (one of "
        f"{', '.join(formats())})",
        path=str(path),
        line=1,
    )


def _detect_item(text: str) -> str | None:
    """Judge by the keys of the first object; a huge document may be cut off in ``text``."""
    try:
        item, _ = json.JSONDecoder().raw_decode(text)
    except json.JSONDecodeError:
        item = {key for key, _ in _ITEM_KEYS if f'"{key}"' in text}
    keys = item if isinstance(item, dict | set) else ()
    return next((name for key, name in _ITEM_KEYS if key in keys), None)


def _by_line(read: Callable[[Iterator[Line], ReadReport], Iterator[Numbered]]) -> Reader:
    return lambda path, report: read(read_lines(path), report)


def _by_item(read: Callable[[Iterator[Line], ReadReport], Iterator[Numbered]]) -> Reader:
    return lambda path, report: read(read_items(path), report)
