"""The gateway's own certificate, renewed while it serves.

Whoever renews certificates (certbot, cert-manager) replaces files. New connections get the new
certificate; those that stand keep what they have.
"""

from __future__ import annotations

import logging
import ssl
from pathlib import Path

from router.config.upstream import ServerTls
from router.domain.errors import ConfigError
from router.gateway.watch import FileWatch

log = logging.getLogger("motley.gateway")


def load_files(tls: ServerTls, context: ssl.SSLContext) -> None:
    """Load certificate, key and the clients' authority.

    Raises:
        ConfigError: a file that cannot be read or does not fit the others.
    """
    try:
        context.load_cert_chain(tls.cert_file, tls.key_file)
        if tls.client_ca_file:
            context.load_verify_locations(tls.client_ca_file)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"server.tls: cannot use its files: {error}") from error


class Renewal:
    """Looks whether the files changed.

    Args:
        tls: which files.
    """

    def __init__(self, tls: ServerTls) -> None:
        self._tls = tls
        named = (tls.cert_file, tls.key_file, tls.client_ca_file)
        self._watches = [FileWatch(Path(name)) for name in named if name]
        self._changed()

    def look(self, context: ssl.SSLContext) -> None:
        """Load what changed into the context that serves; a pair that does not fit changes
        nothing, as between the replacement of one file and of the other."""
        if not self._changed():
            return
        try:
            # A context whose key did not fit would serve nobody: it is tried on another first.
            load_files(self._tls, ssl.create_default_context(ssl.Purpose.CLIENT_AUTH))
            load_files(self._tls, context)
        except ConfigError as error:
            log.error("the certificate stays as it was: %s", error)
            return
        log.info("the certificate was read again")

    def _changed(self) -> bool:
        changed = [watch.changed() for watch in self._watches]  # every one is looked at
        return any(changed)
