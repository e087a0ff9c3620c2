"""What ``motley simulate`` makes of its results: a table, figures, rows and a page of plots."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from router.cli.output import write_json

if TYPE_CHECKING:
    from simulator.results import RunResult


@dataclass(frozen=True, slots=True)
class Outputs:
    """Where what goes.

    Attributes:
        json_path: figures as JSON; ``-`` is stdout, and then nothing else is printed.
        per_request: a row per request.
        html: a page of plots.
    """

    json_path: str | None
    per_request: Path | None
    html: Path | None

    def check(self, log: Path | None) -> None:
        """Refuse a place that cannot be written to before the work, not after it.

        Args:
            log: of the decisions, which the replay itself writes.

        Raises:
            BadInputError: the folder does not exist, or what a format needs is not installed.
        """
        from simulator.report.outputs import check_html, check_place, check_rows

        if self.json_path not in (None, "-"):
            check_place(Path(self.json_path or ""))
        if log is not None:
            check_place(log)
        if self.per_request is not None:
            check_rows(self.per_request)
        if self.html is not None:
            check_html(self.html)

    def write(self, results: Sequence[RunResult]) -> None:
        """Write all that was asked for.

        Raises:
            BadInputError: a file cannot be written.
        """
        from simulator.report.outputs import writing
        from simulator.summary import summarize

        summaries = [summarize(result) for result in results]
        if self.per_request is not None:
            from simulator.report.rows import write_requests

            with writing(self.per_request):
                write_requests(results, self.per_request)
        if self.html is not None:
            from simulator.report.page import write_page

            with writing(self.html):
                write_page(results, self.html)
        if self.json_path is not None:
            write_json({"runs": summaries}, self.json_path)
        if self.json_path != "-":
            _print(results, summaries)


def _print(results: Sequence[RunResult], summaries: Sequence[dict[str, Any]]) -> None:
    from rich.console import Console

    from simulator.compare import RANKING, compare
    from simulator.report.table import WIDE, results_table

    console = Console(highlight=False)
    several = len({result.policy for result in results}) > 1
    differences = compare(results, [RANKING]) if several else []
    console.print(results_table(summaries, differences, wide=console.width >= WIDE))
