"""From what was found to a fleet file: models named, cards filled in, everything loadable."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from router.cli.importers.found import Engine, Found, Service
from router.cli.importers.litellm import STRATEGIES
from router.cli.importers.models import Named, named
from router.cli.spellings import POLICIES
from router.config.load import load_config
from router.config.overlay import overlaid
from router.domain.errors import BadInputError, ConfigError, MotleyError, UnknownNameError
from router.perf.catalog import default_catalog, gpu_names

GUESSED_GPU = "a100-80"
CARDS = (1, 2, 4, 8)


@dataclass(frozen=True, slots=True)
class Choices:
    """What the person adds to the source.

    Attributes:
        gpus, models: (pattern of a URL, backend or model, value); the first that matches counts.
        engine: "vllm" or "sglang"; empty for the source's.
        keep_policy: decide as the source did, where that policy is here too.
    """

    gpus: Sequence[tuple[str, str]] = ()
    models: Sequence[tuple[str, str]] = ()
    engine: str = ""
    keep_policy: bool = False


@dataclass(slots=True)
class Draft:
    """The file to be.

    Attributes:
        content: what it says.
        comments: lines above each backend, in order.
    """

    content: dict[str, Any] = field(default_factory=dict)
    comments: list[list[str]] = field(default_factory=list)


def choices_of(given: Iterable[str], option: str) -> list[tuple[str, str]]:
    """``VALUE`` for all, or ``PATTERN=VALUE``.

    Raises:
        BadInputError: neither.
    """
    pairs = []
    for item in given:
        pattern, mark, value = item.rpartition("=")
        if not value or (mark and not pattern):
            raise BadInputError(f"{option} takes VALUE or PATTERN=VALUE, not {item!r}")
        pairs.append((pattern or "*", value))
    return pairs


def assemble(found: Found, choices: Choices) -> Draft:
    """Make the file; what cannot be taken over is added to ``found.lost``.

    Raises:
        BadInputError: there is nobody who could serve, or a card that nobody knows.
    """
    for _, gpu in choices.gpus:
        if gpu not in gpu_names():
            raise UnknownNameError("GPU", gpu, gpu_names())
    if not found.engines and not found.services:
        why = f": {found.lost[0].what}: {found.lost[0].why}" if found.lost else ""
        raise ConfigError(f"{found.origin}: no engine that Motley could send requests to{why}")
    draft, public = Draft(), dict[str, str]()
    models: dict[str, Any] = {}
    backends = []
    for engine in found.engines:
        row, comments = _backend(engine, choices, models)
        _publish(found, public, engine.public or engine.served, row["model"])
        backends.append(row)
        draft.comments.append(comments)
    sources = [_source(found, service, choices, models, public) for service in found.services]
    draft.content["backends"] = backends
    if sources:
        draft.content["discovery"] = {"kubernetes": sources}
    _names(found, draft.content, public)
    if models:
        draft.content["models"] = models
    prices = {public.get(name, name): price for name, price in found.prices.items()}
    if prices:
        draft.content["access"] = {"prices": prices}
    draft.content["policy"] = {"name": _policy(found, choices)}
    draft.content = overlaid(draft.content, found.settings)
    _keys(found, draft.content)
    return draft


def _chosen(pairs: Sequence[tuple[str, str]], *names: str) -> str:
    for pattern, value in pairs:
        if any(fnmatchcase(name, pattern) for name in names if name) or pattern == "*":
            return value
    return ""


def _named(told: str, models: dict[str, Any], *, exactly: bool) -> tuple[str, Named]:
    """The model's name in the file; described there if the catalogue does not hold it.

    Args:
        told: the engine's own name.
        models: the ``models`` section, added to.
        exactly: whether the engine's own name must be used.
    """
    if told in default_catalog().models or _also(told):
        return told, Named(told)
    guess = named(told)
    if not exactly or not told:
        if guess.described:
            models[guess.model] = guess.described
        return guess.model, guess
    models[told] = guess.described or _figures(guess.model)
    return told, guess


def _also(name: str) -> bool:
    try:
        default_catalog().model(name)
    except UnknownNameError:
        return False
    return True


def _figures(model: str) -> dict[str, Any]:
    spec = default_catalog().model(model)
    keys = (
        *("parameters", "layers", "hidden_size", "kv_heads", "heads", "head_dim"),
        *("intermediate_size", "vocab_size", "tied_embeddings", "max_context_tokens", "dtype"),
    )
    return {key: getattr(spec, key) for key in keys}


def _backend(
    engine: Engine, choices: Choices, models: dict[str, Any]
) -> tuple[dict[str, Any], list[str]]:
    names = (engine.url, engine.name, engine.public, engine.served)
    told = engine.served or _chosen(choices.models, *names)
    model, guess = _named(told, models, exactly=False)
    comments = [guess.doubt] if guess.doubt else []
    gpu = _chosen(choices.gpus, *names) or engine.gpu
    if not gpu:
        gpu = GUESSED_GPU
        comments.append(f"which card? {GUESSED_GPU} is a guess (--gpu NAME)")
    kind = choices.engine or engine.kind
    if not kind:
        kind = "vllm"
        comments.append("which engine? vllm is a guess (--engine sglang)")
    row: dict[str, Any] = {"name": engine.name} if engine.name else {}
    row |= {"gpu": gpu, "engine": kind, "model": model}
    if told and told != model:
        row["served_model"] = told
    row["url"] = engine.url
    if guess.quantization:
        row["quantization"] = guess.quantization
    row |= engine.fields
    cards = engine.tensor_parallel or _cards_needed(row, models)
    if cards > 1:
        row["tensor_parallel"] = cards
    if cards > 1 and not engine.tensor_parallel:
        comments.append(f"{cards} cards are the fewest that hold the model; set what it has")
    return row, comments


def _cards_needed(row: Mapping[str, Any], models: Mapping[str, Any]) -> int:
    """The fewest cards that hold the model; 1 where no number does, so that the error says why."""
    described = {name: models[name] for name in models if name == row["model"]}
    for cards in CARDS:
        content = {"backends": [{**row, "tensor_parallel": cards}], "models": described}
        try:
            load_config(content)
        except MotleyError:
            continue
        return cards
    return 1


def _source(
    found: Found,
    service: Service,
    choices: Choices,
    models: dict[str, Any],
    public: dict[str, str],
) -> dict[str, Any]:
    names = (str(service.fields.get("service", "")), service.public, service.served)
    told = service.served or _chosen(choices.models, *names)
    # Discovery has no served_model: the model goes by the name that engines know.
    served = service.public if service.public and service.public != service.served else told
    model = ""
    if told:
        model, guess = _named(served, models, exactly=True)
        if served != told:
            models[served] = _described(told)
            guess = named(told) if not _also(told) else Named(told)
        if guess.doubt:
            found.notes.append(guess.doubt)
        public.setdefault(served, model)
    else:
        found.notes.append("discovery: engines are asked which model they serve; --model says it")
    gpu = _chosen(choices.gpus, *names) or service.gpu
    told_all = {"engine": choices.engine or service.kind, "gpu": gpu, "model": model}
    template: dict[str, Any] = {key: value for key, value in told_all.items() if value}
    if service.tensor_parallel > 1:
        template["tensor_parallel"] = service.tensor_parallel
    return {**service.fields, "template": {**template, **service.template}}


def _described(told: str) -> dict[str, Any]:
    if _also(told):
        return _figures(told)
    guess = named(told)
    return guess.described or _figures(guess.model)


def _publish(found: Found, public: dict[str, str], name: str, model: str) -> None:
    """Let clients go on using a name."""
    if not name:
        return
    before = public.setdefault(name, model)
    if before != model:
        found.lose(
            f"{name} = {model}",
            f"one name cannot stand for two models; {name} is {before}, name the other itself, or "
            "let it answer in its place (fallbacks)",
        )


def _names(found: Found, content: dict[str, Any], public: Mapping[str, str]) -> None:
    """Aliases and fallbacks, by the names of models in the file."""
    models = {row["model"] for row in content["backends"]} | set(public.values())
    aliases = {name: model for name, model in public.items() if name not in models}
    for alias, name in found.aliases.items():
        model = public.get(name, name)
        if model in models:
            aliases[alias] = model
        else:
            found.lose(f"alias {alias} = {name}", "no engine serves that model")
    fallbacks: dict[str, list[str]] = {}
    for name, others in found.fallbacks.items():
        kept = [public.get(other, other) for other in others]
        model = public.get(name, name)
        if {model, *kept} <= models and model not in kept:
            fallbacks[model] = kept
        else:
            found.lose(f"fallback {name} to {', '.join(others)}", "no engine serves one of them")
    if aliases:
        content["aliases"] = aliases
    if fallbacks:
        content["fallbacks"] = fallbacks


def _policy(found: Found, choices: Choices) -> str:
    ours = {**POLICIES, **STRATEGIES, "least_conn": "nginx-least-conn"}.get(found.policy)
    if choices.keep_policy and ours:
        return ours
    if choices.keep_policy and found.policy:
        found.lose(f"policy {found.policy}", "not here; motley decides instead")
    for setting in [s for s in found.settings if s.startswith("policy.params.")]:
        found.settings.remove(setting)
        found.lose(setting, f"a parameter of {ours or found.policy}; --keep-policy keeps both")
    if found.policy and not choices.keep_policy:
        here = f" (nearest here: {ours}, by --keep-policy)" if ours else ""
        found.notes.append(f"the policy was {found.policy}{here}; motley decides now")
    return "motley"


def _keys(found: Found, content: dict[str, Any]) -> None:
    """Engines' API keys: one for all, or one for each."""
    variables = {engine.key_env for engine in found.engines}
    if variables <= {""}:
        return
    section = content.setdefault("upstream", {})
    if len(variables) == 1:
        section["api_key_env"] = variables.pop()
        return
    own = section.setdefault("backends", {})
    for n, (row, engine) in enumerate(zip(content["backends"], found.engines, strict=True)):
        if engine.key_env:
            row.setdefault("name", f"{row['gpu']}-engine-{n}")
            own[row["name"]] = {"api_key_env": engine.key_env}
