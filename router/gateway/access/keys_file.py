"""API keys on disk: names, rights and digests; a key itself is shown once, when it is made."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import tempfile
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

from pydantic import ValidationError

from router.config.access import DIGEST_PREFIX, KeySection
from router.domain.errors import ConfigError

KEY_PREFIX = "sk-motley-"
KEY_BYTES = 32


def make_key() -> tuple[str, str]:
    """A new key and its digest as the file holds it."""
    key = KEY_PREFIX + secrets.token_urlsafe(KEY_BYTES)
    return key, DIGEST_PREFIX + sha256(key.encode()).hexdigest()


def read_keys(path: Path) -> list[KeySection]:
    """Every key of the file.

    Raises:
        ConfigError: the file cannot be read or holds something else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read the keys file {path}: {error.strerror}") from error
    except ValueError as error:
        raise ConfigError(f"the keys file {path} is not valid JSON: {error}") from error
    entries = content.get("keys") if isinstance(content, dict) else None
    if not isinstance(entries, list):
        raise ConfigError(f"the keys file {path} must be an object with a list 'keys'")
    keys = []
    for position, entry in enumerate(entries):
        try:
            keys.append(KeySection.model_validate(entry))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise ConfigError(
                f"the keys file {path}: keys[{position}].{where}: {first['msg']}"
            ) from error
    return keys


def add_key(path: Path, key: KeySection) -> None:
    """Add a key; the file is made if there is none, readable by its owner only.

    Raises:
        ConfigError: the name is taken, or the file cannot be read or written.
    """
    with _locked(path):
        keys = read_keys(path) if path.exists() else []
        if any(known.name == key.name for known in keys):
            raise ConfigError(
                f"{path} has a key named {key.name!r} already; choose another name or revoke it"
            )
        _write(path, [*keys, key])


def remove_key(path: Path, name: str) -> KeySection:
    """Remove a key by its name; a running gateway drops it within a second.

    Raises:
        ConfigError: there is none of this name, or the file cannot be read or written.
    """
    with _locked(path):
        keys = read_keys(path)
        for key in keys:
            if key.name == name:
                _write(path, [known for known in keys if known is not key])
                return key
    names = ", ".join(known.name for known in keys) or "none"
    raise ConfigError(f"{path} has no key named {name!r}; it has: {names}")


def _write(path: Path, keys: list[KeySection]) -> None:
    """Whole or not at all: a gateway may be reading."""
    entries = [key.model_dump(exclude_none=True, exclude_defaults=True) for key in keys]
    text = json.dumps({"keys": entries}, indent=2) + "\n"
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # mode 0600
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(handle)
        Path(name).replace(path)
    except OSError as error:
        raise ConfigError(f"cannot write the keys file {path}: {error.strerror}") from error


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Two commands at once must not lose a key."""
    try:
        lock = (path.parent / f".{path.name}.lock").open("w")
    except OSError as error:
        raise ConfigError(f"cannot write beside the keys file {path}: {error.strerror}") from error
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
