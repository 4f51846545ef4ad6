"""Kind ``dns``: every DNS server of the cluster, asked directly, about headless Services (``dataplane.dns``).

Clients of a headless Service dial what DNS told them, and no node's rules tell of it. The fence is read first, so what
is read after it is no older. CoreDNS copies slices through a DeltaFIFO (plugin/kubernetes/object/informer.go, client-go
0.35), in which a later event of the fence may overtake another slice: hence a double fence. Its ``cache`` plugin keeps
answers by name, type, DO and CD bit (plugin/cache/cache.go ``hash``): the fence is asked for in eight ways in turn, or
each look at it would be as old as the one before.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec

from tidegate.dataplane import dns
from tidegate.dataplane.dns import Asked, Kind
from tidegate.dataplane.facts import Facts
from tidegate.kube.errors import Unreachable
from tidegate.model.dns import fence_domains, service_domain
from tidegate.model.endpointslice import EndpointSlice
from tidegate.model.epoch import Epoch, earliest
from tidegate.observers.addition import Joining
from tidegate.observers.discovery import DNS
from tidegate.observers.external import Fencing, Question, Replica, Services, Spec, host_and_port, replicas_of
from tidegate.observers.options import decode_options

CONCURRENT_MAX = 16
TRIES = 2
"""Datagrams get lost. After so many without an answer TCP is asked."""
WAYS = tuple((name, do, cd) for do in (False, True) for cd in (False, True) for name in (0, 1))


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """``zone``: the cluster's domain. ``names``: others that lead to pods, asked about in every drain (with a trailing
    dot or not). ``keep_seconds``: what caches on the way add to a TTL: CoreDNS keeps anything for 5 s at least, and
    the time of ``serve_stale`` belongs here where it is on."""

    zone: str = "cluster.local"
    names: tuple[str, ...] = ()
    keep_seconds: float = 5.0
    covers: tuple[str, ...] = (DNS,)


@dataclass(slots=True)
class _Turns:
    """Which way to ask one server for the fence, so that a cache of its has no old answer to give."""

    shown: Epoch | None = None
    last: int = 0
    ttl_max: float = 0.0
    """The longest TTL this server was ever seen to give: cached answers show only what is left of it."""
    kept_until: list[float] = field(default_factory=lambda: [float("-inf")] * len(WAYS))

    def next(self, latest: Epoch | None, now: float) -> int:
        if self.shown is not None and (latest is None or self.shown.reaches(latest)):
            return self.last  # nothing newer to be seen: no other way is used up
        self.last = min(range(len(WAYS)), key=lambda way: max(self.kept_until[way], now))
        return self.last

    def took(self, facts: Facts, now: float) -> None:
        self.shown = earliest(facts.fence) if facts.fence else None
        self.kept_until[self.last] = max(self.kept_until[self.last], now + facts.linger_seconds)


class DnsServers:
    """Observer of kind ``dns``."""

    fencing = Fencing.DOUBLE
    additions = "listed"

    def __init__(self, spec: Spec) -> None:
        self._where = spec.where
        self._options = decode_options(spec, Options)
        self.covers = self._options.covers
        if not 0 <= self._options.keep_seconds < 86_400:
            raise ValueError(f"{spec.path}.keepSeconds: 0 to 86400 s")
        try:
            for name in (*self._options.names, f"x.{self._options.zone}"):
                dns.encode(Asked(_absolute(name), "A", 0))
        except ImportError as error:
            raise ValueError(f"{spec.path}: needs dnspython: pip install 'tidegate[dns]'") from error
        except ValueError as error:
            raise ValueError(f"{spec.path}: {error}") from error
        self._turns: dict[str, _Turns] = {}

    def replicas(self, slices: Iterable[EndpointSlice]) -> tuple[Replica, ...]:
        return replicas_of(self._where, slices)

    def concerns(self, replica: Replica, services: Services) -> bool:
        """Pods of headless Services, and of those of which nothing is known: a ClusterIP's record tells of no pod.

        Not those that publish what is not ready: they stay in DNS until they are gone (``discovery`` names them).
        """
        del replica
        specs = [None if one is None else one.get("spec") or {} for one in services.values()]
        return bool(self._options.names) or any(
            spec is None or (spec.get("clusterIP") == "None" and not spec.get("publishNotReadyAddresses"))
            for spec in specs
        )

    def expected(
        self, replica: Replica, service: str, services: Services, pods: tuple[Joining, ...]
    ) -> tuple[Joining, ...] | None:
        """All of a headless Service: its name is asked for, and a cache may answer as of before the fence."""
        del replica
        spec = (services.get(service) or {}).get("spec") or {}
        return pods if spec.get("clusterIP") == "None" else None

    async def ask(self, replica: Replica, question: Question) -> Facts:
        """Raises ``Unreachable``."""
        began = asyncio.get_running_loop().time()
        server = _Server(*host_and_port(replica.address), timeout_seconds=question.timeout_seconds)
        fence, answer = await self._ask_fence(server, replica, question)
        turn = asyncio.Semaphore(CONCURRENT_MAX)

        async def one(asked: Asked) -> tuple[Asked, bytes]:
            async with turn:
                return asked, await server.ask(asked)

        answers = await asyncio.gather(*(one(asked) for asked in self._questions(question)))
        facts = dns.parse([(fence, answer), *answers], question.install, source=replica.name)
        # An answer may have been given until this reading ended, with its whole TTL.
        took = asyncio.get_running_loop().time() - began
        turns = self._turns[replica.address]
        turns.ttl_max = max(turns.ttl_max, facts.linger_seconds)

        def kept(ttl: float) -> float:
            return (ttl and ttl + self._options.keep_seconds) + took

        routes = tuple(replace(one, kept_seconds=kept(one.kept_seconds)) for one in facts.routes)
        return replace(facts, routes=routes, linger_seconds=kept(turns.ttl_max))

    async def _ask_fence(self, server: _Server, replica: Replica, question: Question) -> tuple[Asked, bytes]:
        now = asyncio.get_running_loop().time
        turns = self._turns.setdefault(replica.address, _Turns())
        name, do, cd = WAYS[turns.next(question.epoch, now())]
        domain = fence_domains(question.install, self._options.zone)[name]
        asked = Asked(domain, "SRV", _number(), is_fence=True, wants_dnssec=do, is_unchecked=cd)
        answer = await server.ask(asked)
        turns.took(dns.parse([(asked, answer)], question.install), now())
        return asked, answer

    def _questions(self, question: Question) -> list[Asked]:
        """A and AAAA of every name that may lead to an endpoint."""
        domains = [service_domain(service, self._options.zone) for service in question.services]
        domains += [_absolute(name) for name in self._options.names]
        families: dict[Kind, None] = {}
        for endpoint in question.endpoints:
            families.setdefault("AAAA" if ":" in endpoint.address else "A")
        return [Asked(domain, kind, _number()) for domain in dict.fromkeys(domains) for kind in families]


def _absolute(name: str) -> str:
    return f"{name.strip('.')}.".lower()


def _number() -> int:
    """Of a message: not to be guessed by who would answer in the server's place."""
    return secrets.randbelow(65_536)


@dataclass(frozen=True, slots=True)
class _Server:
    host: str
    port: int
    timeout_seconds: float

    async def ask(self, asked: Asked) -> bytes:
        """The answer over UDP, else over TCP where it is cut short or nothing comes. Raises ``Unreachable``."""
        query = dns.encode(asked)
        try:
            async with asyncio.timeout(self.timeout_seconds):
                answer = await self._by_datagram(asked, query)
                if answer is None or dns.is_truncated(answer):
                    answer = await self._by_stream(query)
                return answer
        except TimeoutError as error:
            raise Unreachable(f"{self.host}:{self.port}: no answer within {self.timeout_seconds:g} s") from error
        except (OSError, EOFError) as error:
            raise Unreachable(f"{self.host}:{self.port}: {getattr(error, 'strerror', '') or error}") from error

    async def _by_datagram(self, asked: Asked, query: bytes) -> bytes | None:
        """None when nothing comes, or nobody listens for datagrams."""
        loop = asyncio.get_running_loop()
        transport, ear = await loop.create_datagram_endpoint(lambda: _Ear(asked), remote_addr=(self.host, self.port))
        try:
            for _ in range(TRIES):
                transport.sendto(query)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self.timeout_seconds / (TRIES + 2)):
                        return await asyncio.shield(ear.heard)
        except OSError:
            return None
        finally:
            ear.heard.cancel()
            transport.close()
        return None

    async def _by_stream(self, query: bytes) -> bytes:
        reader, writer = await asyncio.open_connection(self.host, self.port)
        try:
            writer.write(len(query).to_bytes(2) + query)
            return await reader.readexactly(int.from_bytes(await reader.readexactly(2)))
        finally:
            writer.close()


class _Ear(asyncio.DatagramProtocol):
    """Waits for a datagram that may be the answer; others are somebody's guesses and are passed over."""

    def __init__(self, asked: Asked) -> None:
        self._asked = asked
        self.heard: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def datagram_received(self, data: bytes, addr: Any) -> None:
        if not self.heard.done() and dns.is_answer_to(self._asked, data):
            self.heard.set_result(data)

    def error_received(self, exc: Exception) -> None:
        if not self.heard.done():
            self.heard.set_exception(exc)
