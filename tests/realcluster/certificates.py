"""Certificates for a control plane of the tests, made by openssl: an authority, a server's and a client's."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

DAYS = "2"


@dataclass(frozen=True)
class Pair:
    """A certificate and its key, as files."""

    certificate: Path
    key: Path


def _openssl(*words: str | Path) -> None:
    subprocess.run(["openssl", *map(str, words)], check=True, capture_output=True)


def authority(folder: Path, name: str) -> Pair:
    """A self-signed authority."""
    made = Pair(folder / f"{name}.crt", folder / f"{name}.key")
    _openssl(
        "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", DAYS,
        "-subj", f"/CN={name}", "-keyout", made.key, "-out", made.certificate,
    )  # fmt: skip
    return made


def signed(by: Pair, name: str, subject: str, extension: str) -> Pair:
    """A certificate of ``subject`` signed ``by`` an authority; ``extension`` as in an openssl configuration."""
    folder = by.certificate.parent
    made, asked = Pair(folder / f"{name}.crt", folder / f"{name}.key"), folder / f"{name}.csr"
    extensions = folder / f"{name}.ext"
    extensions.write_text(extension)
    _openssl(
        "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", subject,
        "-keyout", made.key, "-out", asked,
    )  # fmt: skip
    _openssl(
        "x509", "-req", "-in", asked, "-CA", by.certificate, "-CAkey", by.key, "-CAcreateserial", "-days", DAYS,
        "-extfile", extensions, "-out", made.certificate,
    )  # fmt: skip
    return made
