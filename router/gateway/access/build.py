"""From the configuration to a gate."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from router.config.load import MotleyConfig
from router.domain.errors import ConfigError
from router.gateway.access.gate import Gate
from router.gateway.access.keys_file import read_keys
from router.gateway.access.oidc import OidcReader
from router.gateway.access.ring import Ring, granted_keys, plain_keys


def build_gate(config: MotleyConfig, wall: Callable[[], float]) -> Gate:
    """The gate that the configuration asks for.

    Args:
        config: as loaded.
        wall: seconds since 1970.

    Raises:
        ConfigError: a keys file that cannot be read, a key that is given twice, or an identity
            provider whose keys cannot be used.
    """
    oidc = config.access.oidc
    tokens = OidcReader(oidc, wall) if oidc is not None else None
    return Gate(build_ring(config), config.access.prices, wall, tokens)


def build_ring(config: MotleyConfig) -> Ring:
    """All keys: the file's own, and those of its keys file.

    Raises:
        ConfigError: a keys file that cannot be read, or a key that is given twice.
    """
    access = config.access
    granted = list(access.keys)
    if access.keys_file:
        granted += read_keys(Path(access.keys_file))
    names = [key.name for key in granted]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(f"two API keys are named {twice[0]!r}; give each holder one name")
    return Ring([*plain_keys(config.server.api_keys), *granted_keys(granted)])
