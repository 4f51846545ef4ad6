"""Certificates: an authority of one's own and the leaves it signs, for an installation, a webhook, a lab's server.

Made by ``cryptography`` (the extras ``cluster`` and ``lab``): no cryptography of our own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

AUTHORITY_DAYS = 3650
LEAF_DAYS = 90
RENEW_DAYS = 30
"""A leaf that ends sooner is made anew: agents and clusters may be away for a month."""
SKEW = timedelta(hours=1)
"""Certificates begin before they are made: a node's clock may be behind ours."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate and its key, as PEM. The key is in no ``repr``."""

    certificate: bytes
    key: bytes = field(repr=False)

    @property
    def ends_at(self) -> datetime:
        """Raises ``ValueError`` for what is no certificate."""
        return x509.load_pem_x509_certificate(self.certificate).not_valid_after_utc


def make_authority(install: str, now: datetime) -> Pair:
    """Signs leaves only."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = _named(f"tidegate {install}")
    made = (
        _begun(name, name, key, now, AUTHORITY_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(is_authority=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return _pair(made, key)


def make_leaf(
    authority: Pair, name: str, now: datetime, others: Sequence[x509.GeneralName] = (), days: int = LEAF_DAYS
) -> Pair:
    """For the part called ``name``, as server and as client; ``others``: names and addresses that it has besides.

    Raises ``ValueError`` for what is no authority.

    It names its authority's key: of two that are trusted under one name OpenSSL tries the first, and fails.
    """
    signer = x509.load_pem_x509_certificate(authority.certificate)
    signing = serialization.load_pem_private_key(authority.key, None)
    if not isinstance(signing, ec.EllipticCurvePrivateKey):
        raise ValueError("the authority's key is none of ours")
    key = ec.generate_private_key(ec.SECP256R1())
    purposes = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    made = (
        _begun(signer.subject, _named(name), key, now, days)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name), *others]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(is_authority=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signing.public_key()), critical=False)
        .sign(signing, hashes.SHA256())
    )
    return _pair(made, key)


def is_of(authority: Pair, leaf: Pair, now: datetime) -> bool:
    """Whether ``leaf`` is signed by ``authority`` and lasts for a while yet."""
    try:
        found = x509.load_pem_x509_certificate(leaf.certificate)
        found.verify_directly_issued_by(x509.load_pem_x509_certificate(authority.certificate))
        serialization.load_pem_private_key(leaf.key, None)
    except Exception:  # whatever is wrong with it: another is made
        return False
    return leaf.ends_at - now > timedelta(days=RENEW_DAYS)


def _begun(
    issuer: x509.Name, subject: x509.Name, key: ec.EllipticCurvePrivateKey, now: datetime, days: int
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .issuer_name(issuer)
        .subject_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - SKEW)
        .not_valid_after(now + timedelta(days=days))
    )


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _usage(*, is_authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not is_authority, key_cert_sign=is_authority, crl_sign=is_authority,
        content_commitment=False, key_encipherment=False, data_encipherment=False, key_agreement=False,
        encipher_only=False, decipher_only=False,
    )  # fmt: skip


def _pair(certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> Pair:
    told = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return Pair(certificate.public_bytes(serialization.Encoding.PEM), told)
