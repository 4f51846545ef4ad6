"""Events expire: an hour after they were last seen, as with the real server's event-ttl."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta

from tidegate import vtime
from tidegate.kube.api import EVENTS, Api, JsonObject
from tidegate.kube.errors import ApiError, KubeError
from tidegate.lab.instants import parse_stamp

TTL_SECONDS = 3600
_SWEEP_SECONDS = 300.0


def last_seen(event: JsonObject) -> datetime | None:
    """The latest instant an event speaks of."""
    series = event.get("series") or {}
    spoken = [series.get("lastObservedTime"), event.get("lastTimestamp"), event.get("eventTime")]
    texts = [*spoken, event["metadata"].get("creationTimestamp")]
    return next((instant for text in texts if (instant := parse_stamp(text)) is not None), None)


async def expire_events(api: Api) -> None:
    """Sweep for ever. A sweep that fails is made up for by the next."""
    while True:
        await asyncio.sleep(_SWEEP_SECONDS)
        try:
            await _sweep(api)
        except KubeError:
            continue


async def _sweep(api: Api) -> None:
    limit = vtime.now() - timedelta(seconds=TTL_SECONDS)
    for event in (await api.list(EVENTS)).items:
        seen = last_seen(event)
        if seen is None or seen > limit:
            continue
        try:
            await api.delete(EVENTS, event["metadata"]["name"], event["metadata"]["namespace"])
        except ApiError as error:
            if not error.is_not_found:
                raise
