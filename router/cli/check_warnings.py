"""What looks wrong in a configuration and is allowed, each with its remedy."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from router.cli.check_backends import CROWD, OUTPUT_TOKENS, PROMPT_TOKENS, Line
from router.cli.check_learned import about_learned

if TYPE_CHECKING:
    from router.config.load import MotleyConfig


_MOST_NAMES = 4


def warnings(config: MotleyConfig, lines: list[Line]) -> list[str]:
    """What looks wrong and is allowed, each with its remedy."""
    found = [*_about_backends(config, lines), *_about_access(config)]
    found += about_learned(config).warnings
    return found + _about_targets(config, lines)


def _about_targets(config: MotleyConfig, lines: list[Line]) -> list[str]:
    interactive = config.slos.get("interactive")
    if interactive is None:
        return []
    missed: dict[str, list[str]] = {}
    for line in lines:
        target = interactive.of_model(line.model)
        if target.ttft_s is not None and line.ttft_s > target.ttft_s:
            said = (
                f"even idle its TTFT of {line.ttft_s:.2f} s misses "
                f"slos.interactive.ttft_s ({target.ttft_s:g} s): keep it for other classes"
            )
            missed.setdefault(said, []).append(line.name)
        if target.tpot_s is not None and line.tpot_s > target.tpot_s:
            said = (
                f"even alone its TPOT of {line.tpot_s * 1000:.0f} ms misses "
                f"slos.interactive.tpot_s ({target.tpot_s * 1000:g} ms)"
            )
            missed.setdefault(said, []).append(line.name)
    return [f"{_named(names)}: {said}" for said, names in missed.items()]


def _named(names: list[str]) -> str:
    """A few of them: a line about a thousand backends is read by nobody."""
    unsaid = len(names) - _MOST_NAMES
    return ", ".join(names[:_MOST_NAMES]) + (f" and {unsaid} more" if unsaid > 0 else "")


def _about_backends(config: MotleyConfig, lines: list[Line]) -> list[str]:
    found = []
    by_model: dict[str, list[Line]] = {}
    by_url: dict[str, list[str]] = {}
    crowded: dict[str, list[str]] = {}
    for line in lines:
        by_model.setdefault(line.model, []).append(line)
        if line.url:
            by_url.setdefault(line.url, []).append(line.name)
        if line.streams < CROWD:
            said = (
                f"KV cache for {line.streams} streams of {PROMPT_TOKENS}+{OUTPUT_TOKENS} tokens "
                "only: more cards, or a smaller model"
            )
            crowded.setdefault(said, []).append(line.name)
    found += [f"{_named(names)}: {said}" for said, names in crowded.items()]
    nowhere = [line.name for line in lines if not line.url]
    if nowhere:
        found.append(f"{_named(nowhere)}: no url; 'motley serve' needs one for each")
    for model, served in by_model.items():
        if len(served) == 1 and not config.discovery:
            found.append(f"{model}: one backend serves it; when that fails, nobody does")
        lengths = {line.max_context_tokens for line in served}
        if len(lengths) > 1:
            found.append(
                f"{model}: contexts from {min(lengths):,} to {max(lengths):,} tokens; longer "
                "prompts go to the roomier backends only"
            )
    for url, names in by_url.items():
        if len(names) > 1:
            found.append(f"{_named(names)}: the same url {url}; its load is counted twice")
    return found


def _about_access(config: MotleyConfig) -> list[str]:
    found = _about_keys(config.access.keys_file)
    open_to_all = not (config.server.api_keys or config.access.required)
    public = config.server.host not in ("127.0.0.1", "::1", "localhost")
    if open_to_all and public:
        found.append(
            f"server.host is {config.server.host} and no keys are set: everybody may use the "
            "gateway; make keys with 'motley keys create'"
        )
    if not open_to_all and public and config.server.tls is None:
        found.append("keys travel unencrypted: set server.tls, or put TLS in front")
    plain = [key for key in config.server.api_keys if not key.startswith("sha256:")]
    if plain:
        found.append(f"server.api_keys holds {len(plain)} in plain text; sha256:... is taken too")
    if any(key.usd_per_day for key in config.access.keys) and not config.access.prices:
        found.append("usd_per_day is set and access.prices is not: everything costs nothing")
    if config.shared.interval_s > 0.2:
        found.append(
            f"shared.interval_s is {config.shared.interval_s:g}: replicas that act on older news "
            "than 0.2 s do worse than without any (motley simulate --routers 4 --shared-every)"
        )
    if config.server.workers > 1 and not config.admin.port:
        found.append(
            "/metrics and /debug answer for one worker at random: set admin.port, then worker n "
            "has them at admin.port + n"
        )
    if config.server.workers > 1 and config.server.decision_log:
        found.append("each worker writes a decision log of its own (name-0, name-1, ...)")
    return found


def _about_keys(path: str | None) -> list[str]:
    """Of the file of keys: it may be elsewhere, on the machine that will serve."""
    from router.domain.errors import ConfigError
    from router.gateway.access.keys_file import read_keys

    if path is None:
        return []
    try:
        read_keys(Path(path))
    except ConfigError as error:
        return [
            f"{error}; where that is so 'motley serve' does not start: make it with "
            f"'motley keys create NAME -f {path}'"
        ]
    return []


async def probed(config: MotleyConfig) -> list[str]:
    """Where an engine says otherwise of itself than the file does, or nothing at all."""
    from router.domain.errors import ConfigError
    from router.gateway.admin.identify import identify
    from router.gateway.identity import Identity
    from router.perf.catalog import gpu_names
    from telemetry.http_get import HttpGetter

    found: list[str] = []
    identity = Identity(config.upstream)
    for spec in config.fleet.backends:
        if not spec.url:
            continue
        fetcher = HttpGetter(
            partial(identity.tls, spec.name), header=partial(identity.authorization, spec.name)
        )
        try:
            told = await identify(spec.url, fetcher, list(gpu_names()))
        except ConfigError as error:
            found.append(f"{spec.name}: {error}")
            continue
        finally:
            fetcher.close()
        for what in ("engine", "model", "gpu"):
            said = getattr(told, what)
            if said and said != getattr(spec, what):
                found.append(
                    f"{spec.name}: the file says {what} {getattr(spec, what)}, the engine {said}"
                )
        if told.max_model_len and spec.max_model_len is None:
            longest = config.hardware.max_context_tokens(spec)
            if told.max_model_len < longest:
                found.append(
                    f"{spec.name}: the engine takes {told.max_model_len:,} tokens, not "
                    f"{longest:,}: set max_model_len"
                )
    return found
