"""One cell of a sweep: a run that any process on any machine can do from its description."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path

import msgspec

from router.config.load import load_config
from simulator.batch import make_planner
from simulator.faults import load_faults
from simulator.options import ReplayOptions
from simulator.run import run_policy
from simulator.summary import Summary, summarize
from simulator.synthetic import is_builtin
from simulator.workload import TraceSpec, build_trace
from telemetry.learned_file import read_learned


@dataclass(frozen=True, slots=True)
class Cell:
    """One policy on one trace, fleet, load and seed.

    Attributes:
        trace: with the load as its ``rate_scale``.
        fleet: path of the fleet file.
        policy: name.
        seed: of everything random.
        options: of the replay.
        faults: path of the timeline, if any.
        learned: path of what a gateway learned before, if any.
    """

    trace: TraceSpec
    fleet: Path
    policy: str
    seed: int
    options: ReplayOptions
    faults: Path | None = None
    learned: Path | None = None

    @property
    def load(self) -> float:
        """The rate scale."""
        return self.trace.rate_scale

    @property
    def name(self) -> str:
        """For people."""
        trace = Path(self.trace.source).name
        return f"{self.policy} on {trace} x {self.load:g}, {self.fleet.stem}, seed {self.seed}"

    def key(self) -> str:
        """Name of the cell on disk: changes with every setting and every file it depends on."""
        files = [self.trace.source, *self.trace.mixed_with]
        paths = [Path(name) for name in files if not is_builtin(name)]
        paths += [self.fleet, *(path for path in (self.faults, self.learned) if path)]
        # The content of a file counts, not where it lies.
        trace = {**asdict(self.trace), "source": Path(self.trace.source).name, "mixed_with": None}
        facts = {
            "code": code_digest(),
            "trace": trace,
            "policy": self.policy,
            "options": {**self.options.as_json(), "seed": self.seed},
            "files": [_digest(path, path.stat().st_mtime_ns) for path in paths if path.exists()],
        }
        return hashlib.sha256(msgspec.json.encode(facts, order="sorted")).hexdigest()[:24]


def run_cell(cell: Cell) -> Summary:
    """Do one run.

    Raises:
        MotleyError: a trace, fleet, policy, timeline or file of what was learned that cannot be
            used.
    """
    trace, _ = build_trace(cell.trace, cell.seed)
    result = run_policy(
        trace,
        load_config(cell.fleet),
        cell.policy,
        replace(cell.options, seed=cell.seed),
        rate_scale=cell.load,
        faults=load_faults(cell.faults) if cell.faults else (),
        make_planner=make_planner,
        learned=read_learned(cell.learned)[0] if cell.learned else None,
    )
    return summarize(result)


@lru_cache(maxsize=1)
def code_digest() -> str:
    """Digest of Motley itself: results of another version are not taken for this one's."""
    root = Path(__file__).parents[2]
    digest = hashlib.sha256()
    for package in ("router", "simulator", "solver", "telemetry"):
        for path in sorted((root / package).rglob("*")):
            if path.suffix in {".py", ".toml", ".csv", ".json"}:
                digest.update(path.relative_to(root).as_posix().encode())
                digest.update(path.read_bytes())
    return digest.hexdigest()


@lru_cache(maxsize=256)
def _digest(path: Path, changed_ns: int) -> str:  # noqa: ARG001 - a changed file is another entry
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
