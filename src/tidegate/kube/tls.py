"""TLS 1.3 between parts of an installation, each with a certificate of one authority that signs for nobody else.

A part is named by the DNS name in its certificate, not by its address: addresses are a node's or a pod's, and are given
to others. Files are as a Secret of type kubernetes.io/tls is mounted: ``ca.crt``, ``tls.crt``, ``tls.key``.
"""

from __future__ import annotations

import hashlib
import ssl
from asyncio import sslproto
from pathlib import Path

from tidegate.kube.errors import NoCertificate

READ_BYTES = 16 * 1024
"""One record of TLS. asyncio keeps a buffer of 256 KiB for each connection, all of it written to: 10,000 callers on two
ports were 190 MiB, and are 60."""
AUTHORITY, CERTIFICATE, KEY = "ca.crt", "tls.crt", "tls.key"


class Credentials:
    """Our certificate and its key, in ``folder``. Contexts keep to the newest: what is open goes on as it began."""

    def __init__(self, folder: str) -> None:
        self._folder = Path(folder)
        self._contexts: list[ssl.SSLContext] = []
        self._digest = b""

    def __repr__(self) -> str:
        return f"Credentials({str(self._folder)!r})"

    def server(self, *, is_mutual: bool) -> ssl.SSLContext:
        """``is_mutual``: a caller without a certificate of our authority fails the handshake. Raises
        ``NoCertificate``."""
        sslproto.SSLProtocol.max_size = READ_BYTES
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.num_tickets = 0  # every connection shows its certificate anew
        if is_mutual:
            context.verify_mode = ssl.CERT_REQUIRED
        return self._ready(context)

    def client(self) -> ssl.SSLContext:
        """For peers of our authority, by name. Raises ``NoCertificate``."""
        return self._ready(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))

    def refresh(self) -> bool:
        """Whether there was another certificate than before; connections from now on are made with it. Raises
        ``NoCertificate``, and the one before stays."""
        digest = self._read()
        if digest == self._digest:
            return False
        for context in self._contexts:
            self._load(context)
        self._digest = digest
        return True

    def _ready(self, context: ssl.SSLContext) -> ssl.SSLContext:
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        self._load(context)
        self._contexts.append(context)
        self._digest = self._digest or self._read()
        return context

    def _load(self, context: ssl.SSLContext) -> None:
        try:
            context.load_cert_chain(self._folder / CERTIFICATE, self._folder / KEY, _no_passphrase)
            context.load_verify_locations(self._folder / AUTHORITY)
        except OSError as error:  # ssl.SSLError is one
            raise NoCertificate(f"no certificate in {self._folder}: {error.strerror or error}") from error

    def _read(self) -> bytes:
        """A digest: no second copy of the key is kept."""
        try:
            found = b"".join((self._folder / name).read_bytes() for name in (AUTHORITY, CERTIFICATE, KEY))
        except OSError as error:
            raise NoCertificate(f"no certificate in {self._folder}: {error.strerror}") from error
        return hashlib.sha256(found).digest()


def _no_passphrase() -> str:
    return ""  # else OpenSSL asks on the terminal, and a pod has none


def unverified_client() -> ssl.SSLContext:
    """As an API server asks pods (pods/proxy): under TLS, whoever it is (k8s pkg/controlplane/apiserver/config.go,
    CreateProxyTransport)."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
