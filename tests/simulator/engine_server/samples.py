"""What real engines answered: HTTP dialogues recorded from live servers, kept outside the
repository (``../shared/samples``, or ``$MOTLEY_SHARED/samples``)."""

import json
import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[3]
SAMPLES = Path(os.environ.get("MOTLEY_SHARED", REPOSITORY.parent / "shared")) / "samples"
VOLATILE = {"prompt_tokens_details"}  # null on the recorded servers, on in the emulated ones


def need_samples():
    if not SAMPLES.is_dir():
        pytest.skip(f"no recorded answers of real engines in {SAMPLES}")


def recorded(name):
    """Status, headers and body of one dialogue, without the recorder's trailer."""
    head, _, rest = (SAMPLES / name).read_text().partition("\n\n")
    status, *lines = head.splitlines()
    headers = {k.lower(): v for k, v in (line.split(": ", 1) for line in lines)}
    body = rest.split("\n## ")[0].split("\ncurl rc")[0].strip()
    return int(status.split()[1]), headers, body


def events(body):
    """The data of each server-sent event."""
    return [line.removeprefix("data: ") for line in body.splitlines() if line.startswith("data: ")]


def skeleton(value):
    """The shape of a JSON value: keys in order, nulls, and types for everything else."""
    if isinstance(value, dict):
        return [(k, skeleton(v)) for k, v in value.items() if k not in VOLATILE]
    if isinstance(value, list):
        return [skeleton(v) for v in value]
    return None if value is None else type(value).__name__


def stream_skeleton(body):
    """The shapes of the events of a stream, runs of the same shape as one."""
    shapes = []
    for data in events(body):
        shape = data if data == "[DONE]" else skeleton(json.loads(data))
        if not shapes or shapes[-1] != shape:
            shapes.append(shape)
    return shapes
