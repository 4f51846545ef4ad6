"""Where a lab keeps its state: one folder per lab name, one short folder for its sockets.

UNIX socket paths end at 107 bytes (sockaddr_un), so sockets live under the temporary folder, whatever the length
of the state folder's path. Two state folders are two worlds: labs of one name in them never meet.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

import yaml

from tidegate.lab.config import LOOPBACK, Addressing
from tidegate.lab.runtime import processes

_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,30}[a-z0-9])?")

_SOCKET_PATH_BYTES = 107
_SOCKET_BYTES = len("egress-node-200.sock")
_FOLDER_BYTES = 32 + len("-123456")


class LabError(Exception):
    """A lab cannot do what was asked; the message says what to do next."""


class LabNameError(LabError):
    """What was given cannot name a lab."""


@dataclass(frozen=True, slots=True)
class LabRecord:
    """What a running lab says of itself in its folder."""

    name: str
    pid: int
    """The reaper: parent of everything; when it ends, all of the lab has ended."""
    server: str
    """The API server's URL on this machine."""
    block: int
    nodes: int
    started_at: str
    network: str = LOOPBACK

    @property
    def addressing(self) -> Addressing:
        return Addressing(self.block, int(self.server.rpartition(":")[2]), self.network)


def state_root() -> Path:
    """$TIDEGATE_STATE, else the XDG state folder; absolute. Raises ``LabError`` where there is no home for it."""
    if os.environ.get("TIDEGATE_STATE"):
        return Path(os.environ["TIDEGATE_STATE"]).absolute()
    try:
        base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    except RuntimeError as error:  # neither HOME nor a user of this number
        raise LabError("no home folder to keep a lab's state in; set TIDEGATE_STATE to a folder") from error
    return Path(base).absolute() / "tidegate"


def _sockets_root() -> Path:
    """A writable folder whose path leaves room for a socket's. Raises ``LabError``."""
    tried = list(dict.fromkeys((tempfile.gettempdir(), os.environ.get("XDG_RUNTIME_DIR") or "/tmp", "/tmp")))
    for base in tried:
        root = Path(base) / f"tidegate-{os.geteuid()}"
        if len(os.fsencode(root)) + _FOLDER_BYTES + _SOCKET_BYTES + 2 <= _SOCKET_PATH_BYTES and os.access(
            base, os.W_OK
        ):
            return root
    raise LabError(
        f"no folder for a lab's sockets: {', '.join(tried)} can either not be written to or has too long a path "
        f"(a socket's ends at {_SOCKET_PATH_BYTES} bytes); set TMPDIR to a shorter one"
    )


class LabFolder:
    """The files of one lab. Raises ``LabNameError`` for a name that cannot be one, ``LabError`` for no place at all."""

    def __init__(self, name: str) -> None:
        if not _NAME.fullmatch(name):
            raise LabNameError(f'"{name}" cannot name a lab: lower-case letters, digits and "-", at most 32 characters')
        self.name = name
        self.root = state_root()
        self.path = self.root / "labs" / name
        world = hashlib.sha256(os.fsencode(self.root)).hexdigest()[:6]
        self.sockets = _sockets_root() / f"{name}-{world}"

    @property
    def marks(self) -> dict[str, str]:
        """What every process of this lab carries in its environment."""
        return {processes.MARK: self.name, processes.STATE_MARK: str(self.root)}

    @property
    def record_file(self) -> Path:
        return self.path / "lab.json"

    @property
    def kubeconfig(self) -> Path:
        return self.path / "kubeconfig"

    @property
    def authority_file(self) -> Path:
        """Who signed the API server's certificate; only a lab with TLS has one."""
        return self.path / "ca.crt"

    @property
    def journal(self) -> Path:
        return self.path / "journal.jsonl"

    @property
    def logs(self) -> Path:
        return self.path / "logs"

    @property
    def own_log(self) -> Path:
        return self.path / "lab.log"

    def prepare(self) -> None:
        """Make the folders empty for a fresh lab: nothing of an earlier one is read again. Raises ``LabError``."""
        parent = self.sockets.parent
        parent.mkdir(mode=0o700, exist_ok=True)
        if parent.lstat().st_uid != os.geteuid():  # the temporary folder is everybody's
            raise LabError(f"{parent} belongs to somebody else; set TMPDIR to a folder of your own")
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
        self.remove_sockets()

    def remove_sockets(self) -> None:
        """Delete what only a living lab needs."""
        shutil.rmtree(self.sockets, ignore_errors=True)

    # --- who runs ---

    @property
    def lock_file(self) -> Path:
        return self.path / "lock"

    def lock(self) -> IO[str] | None:
        """Hold the lab's name for as long as the returned file is open; ``None`` when another process holds it.

        The kernel lets go of a flock when its last holder ends, so a killed lab never leaves its name taken.
        Raises ``LabError`` when the state folder cannot be written to.
        """
        while True:
            try:
                self.path.mkdir(parents=True, exist_ok=True)
                file = self.lock_file.open("a+")
            except OSError as error:
                reason = (error.strerror or str(error)).lower()
                raise LabError(
                    f"no state can be kept in {self.path}: {reason}; set TIDEGATE_STATE to a writable folder"
                ) from error
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.close()
                return None
            if self._is_current(file):
                return file
            file.close()  # a `lab down` deleted it between our open and our lock

    def _is_current(self, file: IO[str]) -> bool:
        with contextlib.suppress(OSError):
            return os.path.samestat(os.fstat(file.fileno()), self.lock_file.stat())
        return False

    def write_record(self, record: LabRecord) -> None:
        part = self.record_file.with_suffix(".part")
        part.write_text(json.dumps(asdict(record)))
        part.rename(self.record_file)

    def record(self) -> LabRecord | None:
        """What the lab wrote when it began, or ``None``: never up, taken down, or cut short in the writing."""
        try:
            return LabRecord(**json.loads(self.record_file.read_text()))
        except (FileNotFoundError, NotADirectoryError, ValueError, TypeError):
            return None

    def running(self) -> LabRecord | None:
        """The record of a lab that is alive now.

        Its reaper's environment tells: a zombie has none, and a process that came to the same number another one.
        """
        record = self.record()
        if record is None or processes.environment(record.pid).get(processes.MARK) != self.name:
            return None
        return record

    def kubeconfig_of(self, user: str) -> Path:
        """Where the kubeconfig of a registered token is."""
        return self.path / f"kubeconfig-{user}"

    def write_kubeconfig(self, server: str, user: str = "", token: str = "lab") -> None:
        """The lab's own kubeconfig, or that of the token registered for ``user``.

        client-go sends no token over plain HTTP, but whom to act as (clientcmd/client_config.go): kubectl is held to
        the user's rules by that, who sends the token by the token. Of a lab with TLS it names the TLS port.
        """
        cluster: dict[str, str] = {"server": server}
        if self.authority_file.exists():
            address, _, port = server.removeprefix("http://").rpartition(":")
            data = base64.b64encode(self.authority_file.read_bytes()).decode()
            cluster = {"server": f"https://{address}:{int(port) + 1}", "certificate-authority-data": data}
        credentials = {"token": token, "as": user} if user else {"token": token}
        name = f"tidegate-{self.name}" + (f"-{user}" if user else "")
        path = self.kubeconfig_of(user) if user else self.kubeconfig
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": name,
            "clusters": [{"name": name, "cluster": cluster}],
            "contexts": [{"name": name, "context": {"cluster": name, "user": name, "namespace": "default"}}],
            "users": [{"name": name, "user": credentials}],
        }
        path.touch(0o600)
        path.write_text(yaml.safe_dump(config, sort_keys=False))


def known_labs() -> list[str]:
    """Names that have a folder, running or not."""
    folder = state_root() / "labs"
    if not folder.is_dir():
        return []
    return sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and _NAME.fullmatch(entry.name))
