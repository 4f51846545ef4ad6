"""Watch: where a stream starts, what it says, when it ends.

resourceVersion unset or "0": every object as ADDED, then changes; N: changes after N, 410 when they are forgotten.
Watch-list (sendInitialEvents, KEP-3157): every object as ADDED, then a bookmark that says so, then changes. Real
servers send bookmarks about once a minute and shortly before the deadline (cacher/cacher.go:76).
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from tidegate.kube.api import JsonObject, WatchEvent
from tidegate.kube.errors import ApiError
from tidegate.lab.apiserver import failures
from tidegate.lab.apiserver.listing import ListOptions, chosen, parse_version
from tidegate.lab.apiserver.registry import Row
from tidegate.lab.apiserver.store import Collection, Store
from tidegate.lab.apiserver.versions import ADDED, Event, Version, encode, watch_line
from tidegate.lab.apiserver.watchers import Watcher

BOOKMARK_SECONDS = 60.0
LAST_BOOKMARK_SECONDS = 2.0
TIMEOUT_SECONDS_MIN = 1800

INITIAL_EVENTS_END = "k8s.io/initial-events-end"

Line = Callable[[str, Version, Event | None], bytes]
"""How one event is written for one client: type, version, and the event where lines may be shared."""


@dataclass(slots=True)
class Opening:
    """A watch just begun: what to say first, and the subscription that holds everything after it."""

    first: list[tuple[str, Version, Event | None]]
    watcher: Watcher
    collection: Collection
    rv: int
    ends_initial: bool

    def close(self) -> None:
        self.collection.watchers.remove(self.watcher)


def begin(store: Store, row: Row, namespace: str, options: ListOptions) -> Opening:
    """Subscribe. Raises ApiError 410 (too old), 504 (ahead of us), 400 and 422 (bad options)."""
    check(options)
    wanted = chosen(row, namespace, options)
    collection = store.collection(row)
    try:
        asked = parse_version(options.resource_version)
    except ApiError as error:  # a watch does not wrap it into a BadRequest
        raise failures.failure(500, "", error.message.removeprefix("invalid resource version: ")) from error
    if options.sends_initial and asked > store.rv:
        raise failures.too_large(asked, store.rv)
    wants_all = options.sends_initial if options.sends_initial is not None else not asked
    first: list[tuple[str, Version, Event | None]] = []
    if wants_all:
        held = collection.versions(namespace)
        first = [(ADDED, version, None) for version in held if wanted.matches(version.object)]
    elif asked:
        # A version we never reached comes from a lab that was restarted: 410 makes reflectors list again, where
        # the real server would wait for ever.
        events = collection.since(asked) if asked <= store.rv else None
        if events is None:
            raise failures.expired(asked, collection.forgotten if asked <= store.rv else store.rv)
        for event in events:
            seen = event.seen_through(wanted)
            if seen is not None:
                first.append((*seen, event))
    watcher = Watcher(wanted)
    collection.watchers.add(watcher)
    return Opening(first, watcher, collection, store.rv, bool(options.sends_initial and options.allows_bookmarks))


async def follow(store: Store, row: Row, namespace: str, options: ListOptions) -> AsyncIterator[WatchEvent]:
    """The watch as objects, for callers in the process; never times out."""
    opening = begin(store, row, namespace, options)
    try:
        for kind, version, _ in opening.first:
            yield WatchEvent(kind, version.object)
        opening.first.clear()
        if opening.ends_initial:
            yield WatchEvent("BOOKMARK", bookmark(row, opening.rv, ends_initial=True))
        watcher = opening.watcher
        while True:
            await watcher.wait()
            for kind, version, _ in watcher.take():
                yield WatchEvent(kind, version.object)
            if watcher.is_overrun:
                return
    finally:
        opening.close()


@dataclass(frozen=True, slots=True)
class Stream:
    """What one client's stream is written with."""

    store: Store
    row: Row
    line: Line
    rng: random.Random


async def stream(opening: Opening, options: ListOptions, writing: Stream) -> AsyncIterator[bytes]:
    """The watch as lines of JSON, events that are due together in one chunk."""
    loop = asyncio.get_running_loop()
    seconds = options.timeout_seconds
    if not seconds:
        seconds = TIMEOUT_SECONDS_MIN + writing.rng.randrange(TIMEOUT_SECONDS_MIN)
    deadline = loop.time() + seconds
    try:
        lines = [writing.line(*seen) for seen in opening.first]
        opening.first.clear()
        if opening.ends_initial:
            lines.append(_bookmark_line(writing, opening.rv, ends_initial=True))
        if lines:
            yield b"".join(lines)
        mark = _next_bookmark(loop.time(), deadline) if options.allows_bookmarks else deadline
        watcher = opening.watcher
        while True:
            await watcher.wait(mark)
            batch = watcher.take()
            if batch:
                yield b"".join([writing.line(*seen) for seen in batch])
            if watcher.is_overrun:
                return
            if loop.time() >= deadline:
                return
            if loop.time() >= mark:
                yield _bookmark_line(writing, writing.store.rv)
                mark = _next_bookmark(loop.time(), deadline)
    finally:
        opening.close()


def _next_bookmark(now: float, deadline: float) -> float:
    last = deadline - LAST_BOOKMARK_SECONDS
    if now >= last:
        return deadline
    return min(now + BOOKMARK_SECONDS, last)


def bookmark(row: Row, rv: int, *, ends_initial: bool = False) -> JsonObject:
    """An object of the row's kind that carries nothing but a resourceVersion."""
    metadata: JsonObject = {"resourceVersion": str(rv)}
    if ends_initial:
        metadata["annotations"] = {INITIAL_EVENTS_END: "true"}
    return {"kind": row.kind, "apiVersion": row.resource.api_version, "metadata": metadata}


def _bookmark_line(writing: Stream, rv: int, *, ends_initial: bool = False) -> bytes:
    return watch_line("BOOKMARK", encode(bookmark(writing.row, rv, ends_initial=ends_initial)))


def error_line(error: ApiError) -> bytes:
    """A failure inside a stream that already began."""
    return watch_line("ERROR", encode(error.status))


def check(options: ListOptions) -> None:
    """ValidateListOptions for a watch (apimachinery pkg/apis/meta/internalversion/validation)."""
    causes: list[tuple[str, str]] = []
    if options.sends_initial is None:
        if options.match:
            text = "Forbidden: resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided"
            causes.append(("resourceVersionMatch", text))
    else:
        if options.match != "NotOlderThan":
            text = "Forbidden: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"
            causes.append(("resourceVersionMatch", text))
        if options.match not in ("", "NotOlderThan"):
            text = f'Unsupported value: "{options.match}": supported values: "NotOlderThan"'
            causes.append(("resourceVersionMatch", text))
        if options.match and options.token:
            text = "Forbidden: resourceVersionMatch is forbidden when continue is provided"
            causes.append(("resourceVersionMatch", text))
    if causes:
        raise failures.invalid_option("ListOptions", causes)
