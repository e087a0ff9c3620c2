"""What ``/workers`` tells of a backend."""

from __future__ import annotations

from typing import Any

import pytest

from router.gateway.workers import described
from tests.fakes import spec, view


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://10.0.0.1:8000", "http://10.0.0.1:8000"),
        ("http://motley:hunter2@10.0.0.1:8000/v1", "http://10.0.0.1:8000/v1"),
        ("https://sk-upstream-key@engine.example", "https://engine.example"),
        ("http://a:b@c:d@[::1]:8000", "http://[::1]:8000"),
        (None, ""),
    ],
)
def test_no_user_password_or_key_in_a_backends_url_is_told(url: str | None, shown: str) -> None:
    # Such a URL is refused wherever one is read; this is for what comes in past all that.
    told: dict[str, Any] = described(view(spec=spec("a", url=url)))
    assert told["url"] == shown
    assert "hunter2" not in str(told)
    assert "sk-upstream-key" not in str(told)
