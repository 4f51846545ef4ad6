"""What a lab with TLS shows its callers: an authority of its own, and a certificate for the API server.

Made for one lab, in its folder, and gone with it.
"""

from __future__ import annotations

import ipaddress
import ssl
from datetime import datetime
from pathlib import Path

from cryptography import x509

from tidegate.kube.certificates import make_authority, make_leaf
from tidegate.lab.config import Addressing

AUTHORITY, CERTIFICATE, KEY = "ca.crt", "apiserver.crt", "apiserver.key"
_DAYS = 365
_NAMES = (
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    "kubernetes.default.svc.cluster.local",
    "localhost",
)


def write(folder: Path, addressing: Addressing, now: datetime) -> None:
    """Make both, for every address that the API server of such a lab has. Raises ``OSError``."""
    authority = make_authority("lab", now)
    addresses = (addressing.host, addressing.api_host, f"{addressing.service_prefix}.0.1")
    others: list[x509.GeneralName] = [x509.DNSName(one) for one in _NAMES]
    others += [x509.IPAddress(ipaddress.ip_address(one)) for one in dict.fromkeys(addresses)]
    leaf = make_leaf(authority, "kube-apiserver", now, others, _DAYS)
    (folder / KEY).touch(0o600)
    (folder / KEY).write_bytes(leaf.key)
    (folder / AUTHORITY).write_bytes(authority.certificate)
    (folder / CERTIFICATE).write_bytes(leaf.certificate)


def server_context(folder: Path) -> ssl.SSLContext:
    """What the API server of the lab in ``folder`` listens with. Raises ``OSError``."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(folder / CERTIFICATE, folder / KEY)
    return context
