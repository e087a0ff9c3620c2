"""Which router a text belongs to, and what it says."""

from __future__ import annotations

from typing import Any, Literal, get_args

import yaml

from router.cli.importers import flags, helm, litellm, nginx
from router.cli.importers.found import Found
from router.domain.errors import ConfigError

Kind = Literal["auto", "production-stack", "sglang-router", "litellm", "nginx"]
KINDS: tuple[str, ...] = get_args(Kind)


def read(text: str, kind: Kind, release: str, namespace: str | None) -> Found:
    """Take a configuration apart.

    Args:
        text: a command line, Helm values, LiteLLM's config or nginx's.
        kind: whose it is; "auto" looks.
        release, namespace: of a Helm release.

    Raises:
        ConfigError: it is none of these, or not well-formed.
    """
    if kind == "nginx" or (kind == "auto" and nginx.is_nginx(text)):
        return nginx.read_nginx(text)
    command = kind == "sglang-router" or flags.looks_like_command(text)
    if kind != "litellm" and command and not _mapping(text):
        return flags.read_command(text)
    content = _mapping(text)
    if kind == "litellm" or (kind == "auto" and litellm.is_config(content)):
        if not litellm.is_config(content):
            raise ConfigError("no model_list: not LiteLLM's config.yaml")
        return litellm.read_config(content)
    if kind == "production-stack" or (kind == "auto" and helm.is_values(content)):
        if not helm.is_values(content):
            raise ConfigError(
                "neither a command line nor Helm values (servingEngineSpec, routerSpec)"
            )
        return helm.read_values(content, release, namespace)
    raise ConfigError(
        "nothing that can be imported: give a router's command line (--worker-urls, "
        "--static-backends), production-stack's Helm values, LiteLLM's config.yaml or nginx's "
        "upstream blocks; --from says which"
    )


def _mapping(text: str) -> dict[str, Any]:
    """The text as a YAML mapping; empty where it is none."""
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError:
        return {}
    return content if isinstance(content, dict) else {}
