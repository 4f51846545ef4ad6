"""The coordinator as the installation's authority: it makes the certificates, and makes them anew in time.

Secret ``tidegate-authority`` has the authority's key, and only the coordinator reads it. Secret ``tidegate-agent-tls``
is mounted by agents, who need no right for it. The coordinator's own certificate is in its own memory-backed folder and
in no Secret.
"""

from __future__ import annotations

import asyncio
import base64
import os
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from tidegate import vtime
from tidegate.kube import tls
from tidegate.kube.api import SECRETS, Api, JsonObject
from tidegate.kube.certificates import Pair, is_of, make_authority, make_leaf
from tidegate.kube.errors import ApiError, KubeError, NoCertificate
from tidegate.model.names import MANAGED_BY, SYSTEM_NAMESPACE, TIDEGATE
from tidegate.observers.asking import AGENT_NAME, COORDINATOR_NAME

AUTHORITY_SECRET, AGENT_SECRET = "tidegate-authority", "tidegate-agent-tls"
LOOK_SECONDS = 600.0
RETRY_SECONDS = 2.0
AUTHORITY_KEY = "ca.key"


class Issuer:
    """Keeps both Secrets, and the coordinator's own certificate in ``folder``."""

    def __init__(self, api: Api, folder: str, install: str, log: Callable[[str], None]) -> None:
        self._api = api
        self._folder = Path(folder)
        self._install = install
        self._log = log

    async def keep(self) -> None:
        """For ever. A Secret that somebody deletes is made anew: the authority with it, and all that it signed."""
        while True:
            try:
                await self.issue(vtime.now())
            except (KubeError, NoCertificate, ValueError, OSError) as error:
                self._log(f"certificates: {error}")
                await asyncio.sleep(RETRY_SECONDS)
                continue
            await asyncio.sleep(LOOK_SECONDS)

    async def issue(self, now: datetime) -> None:
        """Make what is missing, ends soon, or is another authority's. Raises ``KubeError``, ``NoCertificate`` (what
        stands is not what we made) and ``OSError``."""
        authority = await self._authority(now)
        await self._agents(authority, now)
        own = _own(self._folder)
        if own is None or not is_of(authority, own, now):
            write_pair(self._folder, authority, make_leaf(authority, COORDINATOR_NAME, now))
            self._log("the coordinator has a new certificate")

    async def _authority(self, now: datetime) -> Pair:
        """The one that stands; of two coordinators that make one at once, the first one's."""
        found = await self._get(AUTHORITY_SECRET)
        if found is None:
            made = make_authority(self._install, now)
            body = secret_of(AUTHORITY_SECRET, "Opaque", {tls.AUTHORITY: made.certificate, AUTHORITY_KEY: made.key})
            try:
                await self._api.create(SECRETS, body, SYSTEM_NAMESPACE)
            except ApiError as error:
                if not error.is_conflict:
                    raise
                return await self._authority(now)
            self._log("made an authority for this installation")
            return made
        pair = pair_in(found, tls.AUTHORITY, AUTHORITY_KEY)
        if pair is None or pair.ends_at < now:
            raise NoCertificate(f"Secret {AUTHORITY_SECRET} is not what we made, or is over: delete it, and wait")
        return pair

    async def _agents(self, authority: Pair, now: datetime) -> None:
        found = await self._get(AGENT_SECRET)
        pair = None if found is None else pair_in(found, tls.CERTIFICATE, tls.KEY)
        if pair is not None and is_of(authority, pair, now):
            return
        leaf = make_leaf(authority, AGENT_NAME, now)
        data = {tls.AUTHORITY: authority.certificate, tls.CERTIFICATE: leaf.certificate, tls.KEY: leaf.key}
        body = secret_of(AGENT_SECRET, "kubernetes.io/tls", data)
        if found is None:
            await self._api.create(SECRETS, body, SYSTEM_NAMESPACE)
        else:
            body["metadata"]["resourceVersion"] = found["metadata"]["resourceVersion"]
            await self._api.replace(SECRETS, body)
        self._log("agents have a new certificate")

    async def _get(self, name: str) -> JsonObject | None:
        try:
            return await self._api.get(SECRETS, name, SYSTEM_NAMESPACE)
        except ApiError as error:
            if error.is_not_found:
                return None
            raise


def write_leaf(folder: Path, authority: Pair, name: str, now: datetime) -> None:
    """A certificate of ``name`` in a folder of its own."""
    write_pair(folder, authority, make_leaf(authority, name, now))


def _own(folder: Path) -> Pair | None:
    try:
        return Pair((folder / tls.CERTIFICATE).read_bytes(), (folder / tls.KEY).read_bytes())
    except OSError:
        return None


def write_pair(folder: Path, authority: Pair, leaf: Pair) -> None:
    """Each file whole, the key for us alone. Between two of them they do not fit: they are then not taken up."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    contents = {tls.AUTHORITY: authority.certificate, tls.KEY: leaf.key, tls.CERTIFICATE: leaf.certificate}
    for name, content in contents.items():
        part = folder / f".{name}.part"
        part.unlink(missing_ok=True)
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        part.rename(folder / name)


def secret_of(name: str, kind: str, data: dict[str, bytes]) -> JsonObject:
    """A Secret of our namespace."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": kind,
        "metadata": {"name": name, "namespace": SYSTEM_NAMESPACE, "labels": {MANAGED_BY: TIDEGATE}},
        "data": {key: base64.b64encode(value).decode() for key, value in data.items()},
    }


def pair_in(secret: JsonObject, certificate: str, key: str) -> Pair | None:
    """What a Secret has under two of its keys, None where it has not both."""
    data = secret.get("data") or {}
    try:
        return Pair(base64.b64decode(data[certificate]), base64.b64decode(data[key]))
    except (KeyError, ValueError):
        return None
