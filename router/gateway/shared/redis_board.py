"""A board in Redis or Valkey: one script, one round trip an exchange, whatever the traffic.

Keys, all under one prefix and one hash tag: ``board`` and ``seen`` (facts and when, by replica, by
the server's clock, so that replicas' clocks need not agree), ``spent:<kind>:<period>`` (totals,
kept for two periods), ``workers``, ``lease:<name>`` and its token, ``born`` (when the first of them
was written: another moment means that all is lost).
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import msgspec

from router.config.shared import SharedSection
from router.domain.errors import ConfigError
from router.gateway.access.ledger import DAY_S, MINUTE_S, Entry, is_daily
from router.gateway.shared.board import BoardError, Posting, View

_EXCHANGE = """
local base, replica, facts = KEYS[1], ARGV[1], ARGV[2]
local stale_ms = tonumber(ARGV[3])
local input = cjson.decode(ARGV[4])
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
redis.call('SET', base .. ':born', clock[1] .. '.' .. clock[2], 'NX')
redis.call('HSET', base .. ':board', replica, facts)
redis.call('HSET', base .. ':seen', replica, now)
for _, item in ipairs(input.spent) do
  redis.call('HINCRBYFLOAT', base .. ':spent:' .. item[1], item[2], item[3])
  redis.call('EXPIRE', base .. ':spent:' .. item[1], item[4])
end
for _, name in ipairs(input.gone) do redis.call('HDEL', base .. ':workers', name) end
for i = 5, #ARGV, 2 do redis.call('HSET', base .. ':workers', ARGV[i], ARGV[i + 1]) end
local others = {}
local seen = redis.call('HGETALL', base .. ':seen')
for i = 1, #seen, 2 do
  if now - tonumber(seen[i + 1]) > stale_ms then
    redis.call('HDEL', base .. ':seen', seen[i])
    redis.call('HDEL', base .. ':board', seen[i])
  elseif seen[i] ~= replica then
    others[#others + 1] = seen[i]
    others[#others + 1] = redis.call('HGET', base .. ':board', seen[i]) or ''
  end
end
local totals = {}
for _, item in ipairs(input.wanted) do
  totals[#totals + 1] = redis.call('HGET', base .. ':spent:' .. item[1], item[2]) or '0'
end
local workers = redis.call('HGETALL', base .. ':workers')
return {others, totals, workers, redis.call('GET', base .. ':born')}
"""
_LEASE = """
local held = redis.call('GET', KEYS[1])
if held == ARGV[1] then
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
  return redis.call('GET', KEYS[2])
elseif held then
  return false
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return tostring(redis.call('INCR', KEYS[2]))
"""
_LEAVE = """
redis.call('HDEL', KEYS[1] .. ':board', ARGV[1])
redis.call('HDEL', KEYS[1] .. ':seen', ARGV[1])
for i = 2, #ARGV do
  local key = KEYS[1] .. ':lease:' .. ARGV[i]
  if redis.call('GET', key) == ARGV[1] then redis.call('DEL', key) end
end
return 1
"""
_SEPARATOR = "\x1f"


class RedisBoard:
    """Implements ``board.Board``.

    Args:
        settings: where Redis is, and how patient to be.
        replica: this one's name.

    Raises:
        ConfigError: the extra ``redis`` is not installed.
    """

    def __init__(self, settings: SharedSection, replica: str) -> None:
        try:
            from redis import asyncio as redis  # noqa: PLC0415 - optional
        except ImportError as error:
            raise ConfigError(
                "shared.url needs the extra 'redis': pip install 'motley-router[redis]'"
            ) from error
        assert settings.url is not None
        self._settings, self._replica = settings, replica
        self._base = f"{{{settings.prefix}}}"
        self._leases: set[str] = set()
        self._client = redis.Redis.from_url(
            settings.url,
            socket_timeout=settings.timeout_s,
            socket_connect_timeout=settings.timeout_s,
            health_check_interval=0,
        )
        self._exchange = self._client.register_script(_EXCHANGE)
        self._lease = self._client.register_script(_LEASE)
        self._leave = self._client.register_script(_LEAVE)

    async def exchange(self, posting: Posting) -> View:
        """Pin and read, in one round trip."""
        settings = self._settings
        wanted = list(posting.wanted)
        arguments: list[Any] = [
            self._replica,
            posting.facts,
            int(settings.stale_after_s * 1000),
            _encoded(posting, wanted),
        ]
        for name, worker in posting.joined.items():
            arguments += [name, worker]
        found = await self._call(self._exchange, [self._base], arguments)
        others, totals, workers, born = found
        return View(
            {name.decode(): facts for name, facts in _pairs(others)},
            {entry: float(total) for entry, total in zip(wanted, totals, strict=True)},
            {name.decode(): worker for name, worker in _pairs(workers)},
            born.decode(),
        )

    async def lease(self, name: str, ttl_s: float) -> int | None:
        """Take or renew a lease."""
        key = f"{self._base}:lease:{name}"
        self._leases.add(name)
        token = await self._call(
            self._lease, [key, f"{key}:token"], [self._replica, int(ttl_s * 1000)]
        )
        return int(token) if token else None

    async def leave(self) -> None:
        """Take the own facts off and give leases back."""
        with contextlib.suppress(BoardError):
            await self._call(self._leave, [self._base], [self._replica, *sorted(self._leases)])
        await self._client.aclose()

    async def _call(self, script: Any, keys: list[str], arguments: list[Any]) -> Any:
        from redis.exceptions import RedisError  # noqa: PLC0415

        try:
            async with asyncio.timeout(self._settings.timeout_s):
                return await script(keys=keys, args=arguments)
        except TimeoutError as error:
            raise BoardError(
                f"Redis did not answer within {self._settings.timeout_s:g} s"
            ) from error
        except (RedisError, OSError, RuntimeError) as error:
            # RuntimeError is uvloop's word for a connection that dropped just before a write.
            raise BoardError(f"Redis: {error}") from error


def _encoded(posting: Posting, wanted: list[Entry]) -> bytes:
    spent = [
        [_period(entry), _field(entry), repr(amount), _keep_s(entry)]
        for entry, amount in posting.spent.items()
    ]
    asked = [[_period(entry), _field(entry)] for entry in wanted]
    return msgspec.json.encode({"spent": spent, "gone": list(posting.gone), "wanted": asked})


def _period(entry: Entry) -> str:
    return f"{'day' if is_daily(entry) else 'minute'}:{entry[2]}"


def _field(entry: Entry) -> str:
    return f"{entry[0]}{_SEPARATOR}{entry[1]}"


def _keep_s(entry: Entry) -> int:
    return int(2 * DAY_S if is_daily(entry) else 3 * MINUTE_S)


def _pairs(flat: list[bytes]) -> list[tuple[bytes, bytes]]:
    return list(zip(flat[::2], flat[1::2], strict=True))
