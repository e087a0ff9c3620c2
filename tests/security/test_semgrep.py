"""Semgrep with rules of our own (``semgrep.yaml``): each catches what it is for, and the packages
are clean.

It has an environment of its own, ``.audit/semgrep`` (``make audit`` makes it): it pins versions
that others here need newer.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.security.test_static import PACKAGES, ROOT

RULES = ROOT / "tests/security/semgrep.yaml"
SEMGREP = Path(os.environ.get("MOTLEY_SEMGREP", ROOT / ".audit/semgrep/bin/semgrep"))
JUSTIFIED = {
    ("router/cli/keys.py", "secret-in-a-log"): "motley keys create shows a new key this once",
    ("router/config/load.py", "yaml-load"): "its loader is a SafeLoader that refuses repeated keys",
    (
        "router/gateway/identity.py",
        "unverified-tls",
    ): "upstream.tls.verify: false, as written there",
    ("simulator/evaluate/inside.py", "eval"): "runs answers of models, inside its sandbox only",
}
"""Findings that were looked at, and why they may stay."""
EXAMPLES: dict[str, tuple[Sequence[str], Sequence[str]]] = {
    "yaml-load": (
        ["yaml.load(text)", "yaml.load(text, Loader=yaml.Loader)", "yaml.unsafe_load(text)"],
        ["yaml.safe_load(text)", "yaml.load(text, Loader=yaml.SafeLoader)"],
    ),
    "unpickling": (
        ["pickle.loads(body)", "numpy.load(path, allow_pickle=True)"],
        ["json.loads(body)", "numpy.load(path)"],
    ),
    "shell": (
        ["subprocess.run(words, shell=True)", "os.system(words)"],
        ["subprocess.run([program, word], check=True)"],
    ),
    "eval": (["eval(text)", "exec(text)"], ["literal_eval(text)", "re.compile(text)"]),
    "secret-in-a-log": (
        [
            'log.info("key %s", api_key)',
            'logger.warning(f"token {request.token}")',
            'self._log.debug("x", extra, self.password)',
            "print(credentials)",
        ],
        ['log.info("key %s", key_name)', 'log.info("tokens %d", tokens)', "cache.get(key)"],
    ),
    "unsteady-compare": (
        ["x = digest == other", "x = self.admin_key != given", "x = given == entry.secret"],
        ["x = hmac.compare_digest(digest, other)", "x = key_name == other", 'x = password == ""'],
    ),
    "temporary-file": (
        ["tempfile.mktemp()", 'open("/tmp/socket", "w")'],
        ["tempfile.mkstemp()", "tempfile.TemporaryDirectory()"],
    ),
    "request-without-timeout": (
        [
            "urllib.request.urlopen(url)",
            "requests.get(url)",
            "httpx.AsyncClient(timeout=None)",
            "socket.create_connection(address)",
        ],
        [
            "urllib.request.urlopen(url, timeout=5)",
            "requests.get(url, timeout=5)",
            "httpx.AsyncClient(timeout=5.0)",
            "socket.create_connection(address, 5.0)",
        ],
    ),
    "unverified-tls": (
        ["httpx.get(url, verify=False, timeout=1)", "context.verify_mode = ssl.CERT_NONE"],
        ["httpx.get(url, verify=context, timeout=1)"],
    ),
    "unsafe-unpacking": (["tar.extractall(path)"], ['tar.extractall(path, filter="data")']),
    "assert-as-a-guard": (
        ["assert key.is_valid(now)", "assert authorized(request)", "assert not self.permitted()"],
        ["assert isinstance(chosen, Hold)", "assert entry is not None"],
    ),
    "weak-hash": (
        ["hashlib.md5(data)"],
        ["hashlib.sha256(data)", "hashlib.sha1(data, usedforsecurity=False)"],
    ),
}
"""By rule: lines that it must find, and lines that it must not."""

pytestmark = [
    pytest.mark.full,
    pytest.mark.timeout(300),
    pytest.mark.skipif(not SEMGREP.exists(), reason="no semgrep here: run `make audit`"),
]


def scan(*paths: str, cwd: Path) -> list[dict[str, Any]]:
    """Findings; fails if semgrep could not read a rule or a file."""
    command = [SEMGREP, "scan", "--config", RULES, "--metrics", "off", "--disable-version-check"]
    ran = subprocess.run(
        [*command, "--no-git-ignore", "--json", "-q", *paths],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )
    assert ran.returncode == 0, ran.stderr[-2_000:]
    said = json.loads(ran.stdout)
    assert said["errors"] == []
    assert said["paths"]["scanned"], "it looked at nothing"
    found: list[dict[str, Any]] = said["results"]
    return found


def rule_of(finding: dict[str, Any]) -> str:
    name: str = finding["check_id"].rpartition(".")[2]
    return name


def test_every_rule_catches_what_it_is_for_and_nothing_else(tmp_path: Path) -> None:
    known = {rule["id"] for rule in yaml.safe_load(RULES.read_text())["rules"]}
    assert known == set(EXAMPLES)
    lines, wanted = [], set()
    for name, (bad, good) in EXAMPLES.items():
        for line in (*bad, *good):
            lines.append(line)
            if line in bad:
                wanted.add((name, line))
    (tmp_path / "examples.py").write_text("\n".join(lines) + "\n")
    found = {(rule_of(f), lines[f["start"]["line"] - 1]) for f in scan(".", cwd=tmp_path)}
    assert found == wanted


def test_the_packages_are_clean() -> None:
    found = scan(*PACKAGES, cwd=ROOT)
    told = [
        f"{f['path']}:{f['start']['line']}: {rule_of(f)}: {f['extra']['message']}"
        for f in found
        if (f["path"], rule_of(f)) not in JUSTIFIED
    ]
    assert told == []
    assert {(f["path"], rule_of(f)) for f in found} == set(JUSTIFIED), "no longer needed"
