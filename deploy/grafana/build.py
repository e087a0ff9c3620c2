"""Turn ``panels.yaml`` into Grafana's dashboards: ``python deploy/grafana/build.py``.

A panel is a title, a unit and its queries; where it stands and how Grafana spells it is worked
out here, so that what is shown can be read and reviewed. ``--check`` only compares.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).parent
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
COLUMNS, WIDTH, HEIGHT = 3, 8, 8


def dashboard(name: str, given: dict[str, Any]) -> dict[str, Any]:
    """One dashboard as Grafana reads it."""
    return {
        "uid": f"motley-{name}",
        "title": given["title"],
        "tags": ["motley"],
        "schemaVersion": 39,
        "editable": True,
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {
            "list": [
                {
                    "name": "datasource",
                    "label": "Data source",
                    "type": "datasource",
                    "query": "prometheus",
                    "current": {"text": "Motley Prometheus", "value": "motley-prometheus"},
                }
            ]
        },
        "links": [
            {"title": "Motley", "type": "dashboards", "tags": ["motley"], "asDropdown": True}
        ],
        "panels": [_panel(number, panel) for number, panel in enumerate(given["panels"])],
    }


def _panel(number: int, panel: dict[str, Any]) -> dict[str, Any]:
    row, column = divmod(number, COLUMNS)
    kind = panel.get("type", "timeseries")
    options: dict[str, Any] = {"tooltip": {"mode": "multi", "sort": "desc"}}
    if kind == "stat":
        options = {"colorMode": "value", "reduceOptions": {"calcs": ["lastNotNull"]}}
    return {
        "id": number + 1,
        "type": kind,
        "title": panel["title"],
        "description": panel.get("about", ""),
        "datasource": DATASOURCE,
        "gridPos": {"x": column * WIDTH, "y": row * HEIGHT, "w": WIDTH, "h": HEIGHT},
        "fieldConfig": {
            "defaults": {"unit": panel["unit"], "min": 0, "custom": {"fillOpacity": 8}},
            "overrides": [],
        },
        "options": options,
        "targets": [
            {
                "refId": chr(ord("A") + n),
                "datasource": DATASOURCE,
                "expr": query["expr"],
                "legendFormat": query["legend"],
            }
            for n, query in enumerate(panel["queries"])
        ],
    }


def main() -> int:
    """Write what is out of date, or only say so."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing")
    check = parser.parse_args().check
    stale = []
    for name, given in yaml.safe_load((HERE / "panels.yaml").read_text("utf-8")).items():
        path = HERE / "dashboards" / f"{name}.json"
        text = json.dumps(dashboard(name, given), indent=2) + "\n"
        if not path.exists() or path.read_text("utf-8") != text:
            stale.append(name)
            if not check:
                path.write_text(text, "utf-8")
    if stale:
        print(f"{'out of date' if check else 'written'}: {', '.join(stale)}")
    return int(check and bool(stale))


if __name__ == "__main__":
    sys.exit(main())
