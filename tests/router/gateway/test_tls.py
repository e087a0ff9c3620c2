"""Backends behind TLS: trusted, or not at all."""

from __future__ import annotations

import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.router.gateway.conftest import StartGateway
from tests.router.gateway.fakes import FakeEngine, chat, stream

pytestmark = pytest.mark.skipif(
    shutil.which("openssl") is None, reason="needs the openssl command to make a certificate"
)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A self-signed certificate for 127.0.0.1, key and all."""
    folder = tmp_path_factory.mktemp("tls")
    path = folder / "both.pem"
    options = "-x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2"
    subject = ["-subj", "/CN=engine", "-addext", "subjectAltName=IP:127.0.0.1"]
    where = ["-keyout", str(path), "-out", str(folder / "certificate.pem")]
    subprocess.run(
        ["openssl", "req", *options.split(), *subject, *where], check=True, capture_output=True
    )
    path.write_text(path.read_text() + (folder / "certificate.pem").read_text())
    return path


@pytest.fixture
async def tls_engine(certificate: Path) -> AsyncIterator[FakeEngine]:
    fake = FakeEngine(chat("secret"), stream(["a", "b"]))
    fake.tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    fake.tls.load_cert_chain(certificate)
    await fake.start()
    yield fake
    await fake.stop()


async def test_a_trusted_backend_is_served_over_tls(
    tls_engine: FakeEngine,
    gateway: StartGateway,
    certificate: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate.with_name("certificate.pem")))
    gate = await gateway(tls_engine)
    answered = await gate.post()
    assert answered.json()["choices"][0]["message"]["content"] == "secret"
    assert (await gate.post()).content.endswith(b"data: [DONE]\n\n")


async def test_a_certificate_that_nobody_vouches_for_is_no_backend(
    tls_engine: FakeEngine, gateway: StartGateway
) -> None:
    gate = await gateway(tls_engine)
    answered = await gate.post()
    assert answered.status_code == 503
    assert "certificate" in answered.json()["error"]["message"]
    assert tls_engine.received == []
