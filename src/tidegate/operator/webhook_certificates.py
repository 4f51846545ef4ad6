"""The webhook's certificate: made and renewed by the operator, in a Secret, and known to the API server before it is
shown.

An authority of its own, apart from that of the node agents: what the API server is told to trust signs for the webhook
alone. When the authority is made anew, the configuration's ``caBundle`` has the old one and the new one for a day, and
the new leaf is taken up only when API servers have had the bundle for a while: no call fails over it. Whoever deletes
the Secret has that done at once. Every replica keeps it; of two that write, one wins and the other reads again.
"""

from __future__ import annotations

import asyncio
import base64
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509

from tidegate import vtime
from tidegate.agent.issuer import AUTHORITY_KEY, pair_in, secret_of, write_pair
from tidegate.agent.operator_objects import WEBHOOK_NAME
from tidegate.agent.roles import WEBHOOK_SECRET
from tidegate.kube import tls
from tidegate.kube.api import MUTATINGWEBHOOKCONFIGURATIONS, SECRETS, Api, JsonObject, Patch
from tidegate.kube.certificates import Pair, is_of, make_authority, make_leaf
from tidegate.kube.errors import ApiError, KubeError
from tidegate.model.names import SYSTEM_NAMESPACE, WEBHOOK
from tidegate.traffic.held import instant

LOOK_SECONDS = 15.0
RETRY_SECONDS = 2.0
SETTLE = timedelta(seconds=30)
"""API servers learn of a new bundle by a watch, within a second; one that is cut off meanwhile fails its calls, and
they are ignored."""
RETIRE = timedelta(days=1)
"""So long an old authority is trusted beside the new one. Its key is gone by then."""
AUTHORITY_RENEW = timedelta(days=180)
TRUSTED = "trusted.crt"
SINCE = "tidegate.dev/trusted-since"
_CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----\n", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Keys:
    """What the Secret holds. ``trusted``: authorities for the bundle, the signing one first; ``since``: when that one
    came to be trusted."""

    authority: Pair
    leaf: Pair
    trusted: tuple[bytes, ...]
    since: datetime

    @property
    def bundle(self) -> bytes:
        return b"".join(self.trusted)


def renewed(found: Keys | None, now: datetime, name: str, inherited: bytes = b"") -> Keys:
    """``found``, or what takes its place now. ``inherited``: a bundle that stands though its keys are gone. Raises
    ``ValueError`` for keys that are none."""
    if found is None or found.authority.ends_at - now < AUTHORITY_RENEW:
        authority = make_authority("webhook", now)
        old = found.trusted if found else tuple(_CERTIFICATE.findall(inherited))
        trusted = (authority.certificate, *(one for one in old if _lasts(one, now)))
        return Keys(authority, make_leaf(authority, name, now), trusted, now)
    if not is_of(found.authority, found.leaf, now):
        found = replace(found, leaf=make_leaf(found.authority, name, now))
    if len(found.trusted) > 1 and now - found.since >= RETIRE:
        found = replace(found, trusted=(found.authority.certificate,))
    return found


def _lasts(certificate: bytes, now: datetime) -> bool:
    try:
        return x509.load_pem_x509_certificate(certificate).not_valid_after_utc > now
    except ValueError:
        return False


class WebhookCertificates:
    """Keeps the Secret and the bundle, and our own leaf in ``folder`` (of memory), from where it is served."""

    def __init__(self, api: Api, folder: str, log: Callable[[str], None], name: str = WEBHOOK_NAME) -> None:
        self._api = api
        self._folder = Path(folder)
        self._log = log
        self._name = name
        self._leaf = b""
        self._told_at: datetime | None = None

    async def keep(self) -> None:
        """For ever."""
        failure = ""
        while True:
            try:
                await self.once(vtime.now())
                failure = ""
            except (KubeError, ValueError, OSError) as error:
                if failure != str(error):
                    failure = str(error)
                    self._log(f"webhook certificates: {failure}")
            await asyncio.sleep(RETRY_SECONDS if failure else LOOK_SECONDS)

    async def once(self, now: datetime) -> None:
        """Secret, then bundle, then what is served. Raises ``KubeError``, ``ValueError``, ``OSError``."""
        configuration = await self._get_configuration()
        secret = await self._get_secret()
        found = None if secret is None else _keys(secret)
        keys = renewed(found, now, self._name, _bundle(configuration))
        if keys != found:
            await self._store(secret, keys)
            self._log("the webhook has a new certificate" if keys.leaf != getattr(found, "leaf", None) else "an old "
                      "authority of the webhook is trusted no more")  # fmt: skip
        if await self._publish(configuration, keys.bundle):
            self._told_at = now
        if keys.leaf.certificate != self._leaf and self._is_settled(keys, now):
            write_pair(self._folder, keys.authority, keys.leaf)
            self._leaf = keys.leaf.certificate

    def _is_settled(self, keys: Keys, now: datetime) -> bool:
        """Whether API servers know the authority by now. Nothing trusted before: there is nothing to wait with."""
        known_at = max(keys.since, self._told_at or keys.since)
        return len(keys.trusted) == 1 or now - known_at >= SETTLE

    async def _get_configuration(self) -> JsonObject | None:
        try:
            return await self._api.get(MUTATINGWEBHOOKCONFIGURATIONS, WEBHOOK)
        except ApiError as error:
            if error.is_not_found:
                return None
            raise

    async def _get_secret(self) -> JsonObject | None:
        try:
            return await self._api.get(SECRETS, WEBHOOK_SECRET, SYSTEM_NAMESPACE)
        except ApiError as error:
            if error.is_not_found:
                return None
            raise

    async def _store(self, secret: JsonObject | None, keys: Keys) -> None:
        """Of two that write at once one gets a conflict, and reads again after ``RETRY_SECONDS``."""
        data = {
            tls.AUTHORITY: keys.authority.certificate, AUTHORITY_KEY: keys.authority.key, TRUSTED: keys.bundle,
            tls.CERTIFICATE: keys.leaf.certificate, tls.KEY: keys.leaf.key,
        }  # fmt: skip
        body = secret_of(WEBHOOK_SECRET, "kubernetes.io/tls", data)
        body["metadata"]["annotations"] = {SINCE: keys.since.strftime("%Y-%m-%dT%H:%M:%SZ")}
        if secret is None:
            await self._api.create(SECRETS, body, SYSTEM_NAMESPACE)
            return
        body["metadata"]["resourceVersion"] = secret["metadata"]["resourceVersion"]
        await self._api.replace(SECRETS, body)

    async def _publish(self, configuration: JsonObject | None, bundle: bytes) -> bool:
        """Whether the configuration had to be told. One field of each webhook, and none other, is written: everything
        else is the installer's."""
        if configuration is None:
            return False
        told = base64.b64encode(bundle).decode()
        patch: list[JsonObject] = []
        for index, one in enumerate(configuration.get("webhooks") or ()):
            if (one.get("clientConfig") or {}).get("caBundle") != told:
                patch.append({"op": "test", "path": f"/webhooks/{index}/name", "value": one["name"]})
                patch.append({"op": "add", "path": f"/webhooks/{index}/clientConfig/caBundle", "value": told})
        if patch:
            await self._api.patch(MUTATINGWEBHOOKCONFIGURATIONS, WEBHOOK, Patch(patch, "json"))
        return bool(patch)


def _bundle(configuration: JsonObject | None) -> bytes:
    """Of the first webhook: all have the same."""
    for one in (configuration or {}).get("webhooks") or ():
        try:
            return base64.b64decode((one.get("clientConfig") or {}).get("caBundle") or "")
        except ValueError:
            return b""
    return b""


def _keys(secret: JsonObject) -> Keys | None:
    """None for what is not what we made: it is made anew."""
    authority, leaf = pair_in(secret, tls.AUTHORITY, AUTHORITY_KEY), pair_in(secret, tls.CERTIFICATE, tls.KEY)
    if authority is None or leaf is None:
        return None
    try:
        authority.ends_at  # noqa: B018 # raises for what is no certificate
        trusted = tuple(_CERTIFICATE.findall(base64.b64decode(secret["data"][TRUSTED])))
        since = instant((secret["metadata"].get("annotations") or {})[SINCE])
    except (KeyError, ValueError):
        return None
    if since is None or trusted[:1] != (authority.certificate,):
        return None
    return Keys(authority, leaf, trusted, since)
