"""Reaching a webhook: an https URL, or a Service of the lab by its endpoints, as kube-apiserver reaches one that runs
with --enable-aggregator-routing (others go by the ClusterIP, which the lab's API server has no route to).

Under virtual time there is no TLS: the same address is asked over the virtual network, in plain HTTP.
Follows apiserver pkg/util/webhook/client.go and pkg/util/proxy/proxy.go (ResolveEndpoint).
"""

from __future__ import annotations

import base64
import binascii
import json
import random
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

import msgspec

from tidegate import vtime
from tidegate.kube import wire
from tidegate.kube.api import JsonObject
from tidegate.kube.errors import Unreachable
from tidegate.kube.exchange import Request
from tidegate.lab.apiserver.registry import Registry
from tidegate.lab.apiserver.store import Store
from tidegate.lab.apiserver.webhooks.review import CallFailed

HTTPS_PORT = 443


@dataclass(frozen=True, slots=True)
class Target:
    """Where a webhook answers: ``host`` and ``port`` to connect to, ``name`` in its certificate, ``url`` in words."""

    host: str
    port: int
    name: str
    path: str
    url: str
    bundle: str = ""


class Caller:
    """Asks webhooks. ``rng`` picks endpoints."""

    def __init__(self, store: Store, registry: Registry, rng: random.Random) -> None:
        self._store = store
        self._registry = registry
        self._rng = rng
        self._contexts: dict[str, ssl.SSLContext] = {}

    async def ask(self, config: JsonObject, body: bytes, timeout_seconds: int) -> bytes:
        """The body of a 2xx answer. Raises ``CallFailed``."""
        try:
            target = self._target(config)
        except _Unresolved as error:
            raise CallFailed(f"failed to call webhook: {_post(error.url, timeout_seconds)}: {error}") from None
        peer = self._peer(target, timeout_seconds)
        headers = {"host": target.url.split("/")[2], "content-type": "application/json"}
        headers |= {"accept": "application/json, */*", "user-agent": "kube-apiserver-admission"}
        request = Request("POST", target.path, (("timeout", f"{timeout_seconds}s"),), headers, body)
        try:
            status, answered, answer = await wire.fetch(peer, request)
        except Unreachable as error:
            why = _in_words(error, target)
            raise CallFailed(f"failed to call webhook: {_post(target.url, timeout_seconds)}: {why}") from error
        if not 200 <= status < 300:
            raise CallFailed(f"failed to call webhook: {_refusal(status, answered, answer)}")
        return answer

    def _peer(self, target: Target, timeout_seconds: int) -> wire.Peer:
        tls = None if vtime.is_virtual() else self._context(target.bundle)
        return wire.Peer(target.host, target.port, "", float(timeout_seconds), tls, target.name)

    def _context(self, bundle: str) -> ssl.SSLContext:
        """Trusts the authorities of ``bundle`` (base64 of PEM), or where there is none those of this machine."""
        context = self._contexts.get(bundle)
        if context is None:
            try:
                pem = base64.b64decode(bundle).decode("ascii")
                context = ssl.create_default_context(cadata=pem) if pem else ssl.create_default_context()
            except (binascii.Error, UnicodeDecodeError, ssl.SSLError) as error:
                why = "unable to load root certificates: unable to parse bytes as PEM block"
                raise CallFailed(f"could not get REST client: {why}") from error
            self._contexts[bundle] = context
        return context

    # -- where

    def _target(self, config: JsonObject) -> Target:
        bundle = str(config.get("caBundle") or "")
        service = config.get("service")
        if service is None:
            url = str(config.get("url") or "")
            parts = urlsplit(url)
            host = parts.hostname or ""
            return Target(host, parts.port or HTTPS_PORT, host, parts.path or "/", url, bundle)
        namespace, name = str(service["namespace"]), str(service["name"])
        port, path = int(service.get("port") or HTTPS_PORT), str(service.get("path") or "/")
        known_as = f"{name}.{namespace}.svc"
        url = f"https://{known_as}:{port}{path}"
        host, number = self._endpoint(namespace, name, port, url)
        return Target(host, number, known_as, path, url, bundle)

    def _endpoint(self, namespace: str, name: str, port: int, url: str) -> tuple[str, int]:
        """A ready endpoint of a Service's port; of several, any."""
        service = self._store.collection(self._registry.named("", "services")).get(namespace, name)
        if service is None:
            raise _Unresolved(f'service "{name}" not found', url)
        spec = service.object["spec"]
        if spec.get("type") == "ExternalName":
            raise _Unresolved('unsupported service type "ExternalName"', url)
        held = next((held for held in spec.get("ports") or [] if held["port"] == port), None)
        if held is None:
            raise _Unresolved(f'no service port {port} found for service "{name}"', url)
        found: list[tuple[str, int]] = []
        slices = self._store.collection(self._registry.named("discovery.k8s.io", "endpointslices"))
        for version in slices.versions(namespace):
            found += _ready(version.object, name, held.get("name") or "")
        if not found:
            raise _Unresolved(f'no endpoints available for service "{name}"', url)
        return found[0] if len(found) == 1 else self._rng.choice(found)


class _Unresolved(Exception):
    def __init__(self, why: str, url: str) -> None:
        super().__init__(why)
        self.url = url


def _ready(piece: JsonObject, service: str, port: str) -> list[tuple[str, int]]:
    """The ready IPv4 endpoints of a slice, if it is the Service's: nothing of a lab listens on IPv6."""
    labels = piece["metadata"].get("labels") or {}
    if labels.get("kubernetes.io/service-name") != service or piece.get("addressType") == "IPv6":
        return []
    numbers = [one["port"] for one in piece.get("ports") or [] if (one.get("name") or "") == port and one.get("port")]
    return [
        (endpoint["addresses"][0], numbers[0])
        for endpoint in piece.get("endpoints") or []
        if numbers and (endpoint.get("conditions") or {}).get("ready", True) is not False
    ]


def _post(url: str, timeout_seconds: int) -> str:
    return f'Post "{url}?timeout={timeout_seconds}s"'


def _in_words(error: Unreachable, target: Target) -> str:
    """As Go says it, where we know how."""
    cause = error.__cause__
    if isinstance(cause, TimeoutError):
        return "context deadline exceeded"
    if isinstance(cause, ssl.SSLCertVerificationError):
        if cause.verify_code == _HOSTNAME_MISMATCH:
            return f"tls: failed to verify certificate: x509: certificate is not valid for {target.name}"
        if cause.verify_code == _EXPIRED:
            return "tls: failed to verify certificate: x509: certificate has expired or is not yet valid"
        return "tls: failed to verify certificate: x509: certificate signed by unknown authority"
    if isinstance(cause, ConnectionRefusedError):
        return f"dial tcp {target.host}:{target.port}: connect: connection refused"
    if isinstance(cause, ConnectionResetError):
        return "EOF"
    return str(error).removeprefix(f"{target.host}:{target.port}: ")


_HOSTNAME_MISMATCH, _EXPIRED = 62, 10
"""X509_V_ERR_* of OpenSSL."""

_REFUSALS = {
    400: "the server rejected our request for an unknown reason",
    401: "the server has asked for the client to provide credentials",
    404: "the server could not find the requested resource",
    405: "the server does not allow this method on the requested resource",
    409: "the server reported a conflict",
    422: "the server rejected our request due to an error in our request",
    429: "the server has received too many requests and has asked us to try again later",
    503: "the server is currently unable to handle the request",
    504: "the server was unable to return a response in the time allotted, but may still be processing the request",
}


def _refusal(status: int, headers: Mapping[str, str], body: bytes) -> str:
    """What client-go makes of an answer that is no success (api/errors NewGenericServerResponse)."""
    try:
        said = msgspec.json.decode(body)
    except msgspec.DecodeError:
        said = None
    if isinstance(said, dict) and (said.get("kind"), said.get("status")) == ("Status", "Failure"):
        return str(said.get("message") or "unknown error")
    is_text = headers.get("content-type", "text/").startswith("text/")
    text = body.decode(errors="replace").strip() if is_text else "unknown"
    if status in (403, 406, 415):
        return text
    if status in _REFUSALS:
        return _REFUSALS[status]
    if status >= 500:
        return f"an error on the server ({json.dumps(text)}) has prevented the request from succeeding"
    return f"the server responded with the status code {status} but did not return more information"
