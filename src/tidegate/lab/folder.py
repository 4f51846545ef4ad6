"""Where a lab keeps its state: one folder per lab name, one short folder for its sockets.

UNIX socket paths end at 107 bytes (sockaddr_un), so sockets live under the temporary folder, whatever the length
of the state folder's path.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

import yaml

_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,30}[a-z0-9])?")


class LabError(Exception):
    """A lab cannot do what was asked; the message says what to do next."""


@dataclass(frozen=True, slots=True)
class LabRecord:
    """What a running lab says of itself in its folder."""

    name: str
    pid: int
    """The reaper: parent of everything; when it ends, all of the lab has ended."""
    server: str
    block: int
    nodes: int
    started_at: str


def state_root() -> Path:
    """$TIDEGATE_STATE, else the XDG state folder."""
    if os.environ.get("TIDEGATE_STATE"):
        return Path(os.environ["TIDEGATE_STATE"])
    base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(base) / "tidegate"


class LabFolder:
    """The files of one lab. Raises ``LabError`` for a name that cannot be one."""

    def __init__(self, name: str) -> None:
        if not _NAME.fullmatch(name):
            raise LabError(f'"{name}" cannot name a lab: lower-case letters, digits and "-", at most 32 characters')
        self.name = name
        self.path = state_root() / "labs" / name
        self.sockets = Path(tempfile.gettempdir()) / f"tidegate-{os.geteuid()}" / name

    @property
    def record_file(self) -> Path:
        return self.path / "lab.json"

    @property
    def kubeconfig(self) -> Path:
        return self.path / "kubeconfig"

    @property
    def journal(self) -> Path:
        return self.path / "journal.jsonl"

    @property
    def kernel_journal(self) -> Path:
        return self.path / "kernel.jsonl"

    @property
    def logs(self) -> Path:
        return self.path / "logs"

    @property
    def own_log(self) -> Path:
        return self.path / "lab.log"

    def prepare(self) -> None:
        """Make the folders empty for a fresh lab: nothing of an earlier one is read again."""
        for folder in (self.path, self.sockets):
            if folder.exists():
                keep = {self.lock_file}
                for entry in folder.iterdir():
                    if entry not in keep:
                        shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
            folder.mkdir(parents=True, exist_ok=True)
            folder.chmod(0o700)

    def remove(self) -> None:
        """Delete everything the lab kept."""
        shutil.rmtree(self.path, ignore_errors=True)
        shutil.rmtree(self.sockets, ignore_errors=True)

    # --- who runs ---

    @property
    def lock_file(self) -> Path:
        return self.path / "lock"

    def lock(self) -> IO[str] | None:
        """Hold the lab's name for as long as the returned file is open; ``None`` when another process holds it.

        The kernel lets go of a flock when its last holder ends, so a killed lab never leaves its name taken.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        file = self.lock_file.open("a+")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            return None
        return file

    def write_record(self, record: LabRecord) -> None:
        part = self.record_file.with_suffix(".part")
        part.write_text(json.dumps(asdict(record)))
        part.rename(self.record_file)

    def record(self) -> LabRecord | None:
        """What the lab wrote when it was ready, or ``None``: never up, or taken down."""
        try:
            return LabRecord(**json.loads(self.record_file.read_text()))
        except (FileNotFoundError, ValueError, TypeError):
            return None

    def running(self) -> LabRecord | None:
        """The record of a lab that is alive now."""
        record = self.record()
        return record if record is not None and _alive(record.pid) else None

    def write_kubeconfig(self, server: str) -> None:
        name = f"tidegate-{self.name}"
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": name,
            "clusters": [{"name": name, "cluster": {"server": server}}],
            "contexts": [{"name": name, "context": {"cluster": name, "user": name, "namespace": "default"}}],
            "users": [{"name": name, "user": {"token": "lab"}}],
        }
        self.kubeconfig.touch(0o600)
        self.kubeconfig.write_text(yaml.safe_dump(config, sort_keys=False))


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def known_labs() -> list[str]:
    """Names that have a folder, running or not."""
    folder = state_root() / "labs"
    return sorted(entry.name for entry in folder.iterdir() if entry.is_dir()) if folder.is_dir() else []
