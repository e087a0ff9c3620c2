"""A backend as its pod or deployment tells it: one line of ``backends``, as YAML or JSON.

The chart writes the annotation ``motley.dev/backend`` on the deployment and on its pods, so that
placement and discovery agree on what runs there, to the group.
"""

from __future__ import annotations

from typing import Any

import yaml
from pydantic import ValidationError

from router.config.load import explain
from router.config.schema import BackendEntry
from router.config.yaml_error import in_a_line
from router.domain.errors import ConfigError

BACKEND = "motley.dev/backend"


def read_line(line: str, **found: Any) -> BackendEntry:
    """The entry of an annotation, with what only its reader knows (name, URL).

    Raises:
        ConfigError: it is no line of ``backends``.
    """
    try:
        told = yaml.safe_load(line)
    except yaml.YAMLError as error:
        raise ConfigError(f"annotation {BACKEND} is not valid YAML: {in_a_line(error)}") from error
    except RecursionError as error:
        raise ConfigError(f"annotation {BACKEND} is nested too deep") from error
    if not isinstance(told, dict):
        raise ConfigError(
            f"annotation {BACKEND} must be a line of backends, as in "
            f"{{gpu: t4, engine: vllm, model: llama-3.1-8b}}, not {line!r:.60}"
        )
    try:
        return BackendEntry.model_validate({**told, **found})
    except ValidationError as error:
        raise ConfigError(f"annotation {BACKEND}: {explain(error)}") from error
