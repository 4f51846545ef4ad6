"""The images of a node that reaches no registry: one static binary and a few words, as an OCI archive to import."""

from __future__ import annotations

import hashlib
import io
import json
import struct
import tarfile
from pathlib import Path

BUSYBOX = Path("/bin/busybox")
"""A static one (Debian: busybox-static)."""
APP_IMAGE, PAUSE_IMAGE = "tidegate.test/app:1", "tidegate.test/pause:1"
APP_PORT = 8080
PT_INTERP = 3
APPLETS = ("sh", "httpd", "sleep", "test", "wget", "touch", "cat", "chroot")
SERVE = """#!/bin/sh
# Process 1 whose end is the end of the rest: exits at once on SIGTERM, as most servers do.
trap 'exit 0' TERM
trap '' INT
httpd -f -p 8080 -h /www &
wait
"""


def is_static(binary: Path) -> bool:
    """Whether nothing else of the machine has to be in the image: an ELF file with no program interpreter."""
    if not binary.exists():
        return False
    content = binary.read_bytes()
    [table], [size, count] = struct.unpack_from("<Q", content, 32), struct.unpack_from("<HH", content, 54)
    kinds = [struct.unpack_from("<I", content, table + number * size)[0] for number in range(count)]
    return content[:5] == b"\x7fELF\x02" and PT_INTERP not in kinds


def archive(path: Path) -> None:
    """Both images, for ``ctr images import``."""
    layer = _layer()
    blobs = {_digest(layer): layer}
    manifests = [
        _image(blobs, layer, APP_IMAGE, ["/serve"]),
        _image(blobs, layer, PAUSE_IMAGE, ["/bin/sleep", "1000000000"]),
    ]
    files = {f"blobs/sha256/{digest}": blob for digest, blob in blobs.items()}
    files["oci-layout"] = b'{"imageLayoutVersion": "1.0.0"}'
    files["index.json"] = json.dumps({"schemaVersion": 2, "manifests": manifests}).encode()
    path.write_bytes(_tar({name: (blob, 0o644) for name, blob in files.items()}))


def _layer() -> bytes:
    files = {
        "bin/busybox": (BUSYBOX.read_bytes(), 0o755),
        "serve": (SERVE.encode(), 0o755),
        "www/index.html": (b"served\n", 0o644),
    }
    return _tar(files, {f"bin/{applet}": "busybox" for applet in APPLETS})


def _tar(files: dict[str, tuple[bytes, int]], links: dict[str, str] | None = None) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, (content, mode) in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), mode
            tar.addfile(entry, io.BytesIO(content))
        for name, target in (links or {}).items():
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = tarfile.SYMTYPE, target
            tar.addfile(entry)
    return out.getvalue()


def _digest(blob: bytes) -> str:
    return hashlib.sha256(blob).hexdigest()


def _image(blobs: dict[str, bytes], layer: bytes, name: str, command: list[str]) -> dict[str, object]:
    """Its configuration and manifest among the blobs; its line of the index."""

    def described(blob: bytes, kind: str) -> dict[str, object]:
        blobs[_digest(blob)] = blob
        media = f"application/vnd.oci.image.{kind}"
        return {"mediaType": media, "digest": f"sha256:{_digest(blob)}", "size": len(blob)}

    configuration = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Entrypoint": command, "Env": ["PATH=/bin"]},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{_digest(layer)}"]},
    }
    manifest = {
        "schemaVersion": 2,
        "config": described(json.dumps(configuration).encode(), "config.v1+json"),
        "layers": [described(layer, "layer.v1.tar")],
    }
    line = described(json.dumps(manifest).encode(), "manifest.v1+json")
    return {**line, "annotations": {"io.containerd.image.name": name, "org.opencontainers.image.ref.name": name}}
