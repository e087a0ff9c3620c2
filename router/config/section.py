"""The base of every section of the YAML file."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from router.domain.fleet import ENGINES, EngineName


def known_engine(given: object) -> object:
    """Refuse an engine that is none, saying what to write instead.

    Raises:
        ValueError: it is none of those.
    """
    if given in ENGINES:
        return given
    raise ValueError(
        f"there is no engine {given!r}; there are {', '.join(ENGINES)}. Any other that speaks "
        "OpenAI's API is served as engine: vllm; its speed is learned, and the metrics of TGI and "
        "TensorRT-LLM are read by their own names"
    )


Engine = Annotated[EngineName, BeforeValidator(known_engine)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
MOST = 10**12
"""Of anything in an engine; a number of hundreds of digits is no float any more."""


class Section(BaseModel):
    """Frozen; unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())
