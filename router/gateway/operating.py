"""What changes a gateway while it runs: discovery, reload, draining."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import threading
from functools import partial

from router.config.load import MotleyConfig
from router.gateway.access.gate import Gate
from router.gateway.admin.addresses import guard, parse_networks
from router.gateway.admin.door import build_admin_app, serve_admin
from router.gateway.discovery.dns import FromDns
from router.gateway.discovery.file import FromFile
from router.gateway.discovery.follow import follow
from router.gateway.discovery.kubernetes import FromKubernetes
from router.gateway.discovery.roster import Roster, in_flight_of
from router.gateway.discovery.seam import Source
from router.gateway.identity import Identity
from router.gateway.reload import Loader, Reloader
from router.gateway.runtime import Chore, Runtime
from router.gateway.server import bind, url_of
from router.gateway.shared.board import Board
from router.gateway.shared.redis_board import RedisBoard
from router.gateway.shared.sharing import Sharing
from router.perf.catalog import gpu_names
from telemetry import metric_table as table
from telemetry.http_get import HttpGetter

LED = frozenset(("scraper", "planner", "placement"))
"""Chores that one replica does for all."""
TIDY_S = 20.0


def attach(runtime: Runtime, load: Loader | None, board: Board | None = None) -> None:
    """Give a gateway its roster, its sources of backends, its reload and its share in others.

    Args:
        runtime: complete but for these.
        load: reads the configuration again; ``None`` where it did not come from a file.
        board: shared with other replicas; by default Redis if the configuration names one.

    Raises:
        ConfigError: a source needs an extra that is not installed, the admin port is taken, or a
            network of ``admin.worker_networks`` is none.
    """
    parse_networks(runtime.config.admin.worker_networks)
    config, engine = runtime.config, runtime.engine
    metrics = runtime.instruments.metrics
    roster = runtime.roster = Roster(
        runtime,
        config.hardware,
        engine.now,
        drain_s=config.reliability.drain_timeout_s,
        fleet=config.fleet.backends,
    )
    in_flight = in_flight_of(engine.dispatcher.state.get)
    rest = engine.lull.rest
    chores = [Chore("draining", partial(roster.keep_releasing, in_flight, rest))]

    def failed(source: str) -> None:
        metrics.count(table.DISCOVERY_ERRORS, (source,))

    for source in sources(config):
        chores.append(Chore(source.name, partial(follow, source, roster, failed, engine.poke)))
    if load is not None:
        reloader = runtime.reloader = Reloader(
            runtime, roster, load, lambda result: metrics.count(table.RELOADS, (result,))
        )
        metrics.ask(table.RELOAD_OK, lambda: [((), float(reloader.last_ok))])
        chores.append(Chore("reload", partial(reloader.keep_watching, rest)))
        chores.append(Chore("hangup", partial(_on_hangup, reloader)))
    if config.admin.port is not None:
        listener = bind(config.admin.host, config.admin.port, shared=board is not None)
        runtime.admin_url = url_of(listener)
        app = build_admin_app(runtime)
        chores.append(Chore("admin", partial(serve_admin, app, listener)))
        runtime.closing = (*runtime.closing, listener.close)
    chores.append(Chore("limits", partial(_keep_tidy, runtime.gate)))
    if runtime.gate.tokens is not None:
        chores.append(Chore("identity provider", runtime.gate.tokens.keep_fresh))
    runtime.chores = [*runtime.chores, *chores]
    if board is None and config.shared.url is not None:
        board = RedisBoard(config.shared, replica_name(config))
    if board is not None:
        _share(runtime, board)


def replica_name(config: MotleyConfig) -> str:
    """Unique among the replicas."""
    return config.shared.replica or f"{os.uname().nodename}-{os.getpid()}"


def _share(runtime: Runtime, board: Board) -> None:
    config, engine, metrics = runtime.config, runtime.engine, runtime.instruments.metrics
    assert runtime.roster is not None
    sharing = runtime.sharing = Sharing(
        board,
        config.shared,
        engine,
        runtime.roster,
        guard=guard(config.admin),
        failed=lambda: metrics.count(table.SHARED_ERRORS),
    )
    runtime.roster.told = sharing
    if config.shared.prefixes:
        engine.tell_sent(sharing.sent)
    metrics.ask(table.SHARED_UP, lambda: [((), float(sharing.up))])
    metrics.ask(table.SHARED_REPLICAS, lambda: [((), float(sharing.replicas))])
    metrics.ask(table.SHARED_LEADER, lambda: [((), float(sharing.lead.here))])
    runtime.chores = [
        Chore(chore.name, partial(sharing.lead.while_leading, chore.run))
        if chore.name in LED
        else chore
        for chore in runtime.chores
    ]
    runtime.chores = [*runtime.chores, Chore("sharing", sharing.run)]


async def _keep_tidy(gate: Gate) -> None:
    """Minutes and days that are over need no memory."""
    while True:
        await asyncio.sleep(TIDY_S)
        gate.tidy()


async def _on_hangup(reloader: Reloader) -> None:
    """SIGHUP reloads, as it does in most servers."""
    if threading.current_thread() is not threading.main_thread():
        return
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGHUP, lambda: reloader.reload("SIGHUP"))
    try:
        await loop.create_future()
    finally:
        loop.remove_signal_handler(signal.SIGHUP)


def sources(config: MotleyConfig) -> list[Source]:
    """Every source of backends that the configuration names.

    Raises:
        ConfigError: one needs an extra that is not installed.
    """
    wanted = config.discovery
    rng = random.Random(config.policy.seed)
    found: list[Source] = [FromFile(section) for section in wanted.files]
    found += [FromDns(section) for section in wanted.dns]
    identity = Identity(config.upstream)

    def fetcher_of(name: str) -> HttpGetter:
        return HttpGetter(lambda: identity.tls(name), header=lambda: identity.authorization(name))

    found += [
        FromKubernetes(section, gpu_names(), rng, fetcher_of) for section in wanted.kubernetes
    ]
    return found
