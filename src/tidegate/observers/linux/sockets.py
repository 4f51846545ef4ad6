"""A pod's sockets, read in the pod's own network namespace, which is found by the pod's address.

Needs the node's process ids (hostPID), CAP_SYS_PTRACE to look at other users' namespaces, CAP_SYS_ADMIN to enter one.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from ipaddress import ip_address

from tidegate import vtime
from tidegate.dataplane import sockets
from tidegate.dataplane.facts import Unreadable
from tidegate.dataplane.sockets import Quiet, Socket
from tidegate.model.endpoint import Endpoint
from tidegate.observers import sockdiag
from tidegate.observers.linux.kubelet import KubeletProcess

_CLONE_NEWNET = 0x40000000
_FAMILIES = (2, 10)


class NotFound(Exception):
    """No network namespace of this node, or more than one, has the address."""


@dataclass(frozen=True, slots=True)
class NamespacedSockets:
    """The sockets of this node's pods; the kubelet's own connections to them do not count."""

    kubelet: KubeletProcess = field(default_factory=KubeletProcess)

    async def read(self, endpoints: tuple[Endpoint, ...]) -> Quiet:
        """Whether anything is in flight at the endpoints of one pod. Never raises."""
        return await asyncio.to_thread(self._read, endpoints)

    def _read(self, endpoints: tuple[Endpoint, ...]) -> Quiet:
        addresses = tuple(dict.fromkeys(endpoint.address for endpoint in endpoints))
        try:
            places = namespaces_of(addresses)
            tables = [read_in(path, family) for path in dict.fromkeys(places.values()) for family in _FAMILIES]
        except (NotFound, OSError) as error:
            return Quiet(unreadable=(Unreadable(str(error), "network namespaces"),))
        found = sockets.quiet(tables, endpoints)
        # The kubelet's own are looked for only where something is in flight at all.
        return sockets.quiet(tables, endpoints, self._kubelets()) if found.live else found

    def _kubelets(self) -> tuple[Socket, ...]:
        """The kubelet's end of its connections is in the node's network."""
        pid = self.kubelet.pid()
        if not pid:
            return ()
        with suppress(OSError):
            inodes = vtime.socket_inodes(pid)
            own = [found for family in _FAMILIES if not isinstance(found := sockdiag.read(family), Unreadable)]
            return sockets.owned_by((socket for table in own for socket in table), inodes)
        return ()


def namespaces_of(addresses: tuple[str, ...]) -> dict[str, str]:
    """Address -> path of the one network namespace that has it. Raises ``NotFound``, ``OSError``."""
    found: dict[str, list[str]] = {address: [] for address in addresses}
    for pid in _one_of_each_namespace():
        for address in _local(f"/proc/{pid}/net", addresses):
            found[address].append(f"/proc/{pid}/ns/net")
    for address, paths in found.items():
        if len(paths) != 1:
            many = f"{len(paths)} of this node's network namespaces have"
            raise NotFound(f"{many if paths else sockets.NOWHERE} {address}, expected is one")
    return {address: path for address, [path] in found.items()}


def read_in(path: str, family: int) -> tuple[Socket, ...] | Unreadable:
    """All TCP sockets of the network namespace at ``path``. A thread enters it, and ends there."""
    answers: list[tuple[Socket, ...] | Unreadable] = []
    thread = threading.Thread(target=lambda: answers.append(_enter_and_read(path, family)), daemon=True)
    thread.start()
    thread.join()
    return answers[0] if answers else Unreadable("the reading thread failed", path)


def _enter_and_read(path: str, family: int) -> tuple[Socket, ...] | Unreadable:
    libc = ctypes.CDLL(None, use_errno=True)
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        return Unreadable(str(error), path)
    try:
        if libc.setns(descriptor, _CLONE_NEWNET):
            return Unreadable(f"cannot be entered: {os.strerror(ctypes.get_errno())}", path)
    finally:
        os.close(descriptor)
    return sockdiag.read(family)


def _one_of_each_namespace() -> Iterator[str]:
    """A process id in each network namespace, ours first.

    Whose namespace may not be seen (a security module's word, CAP_SYS_PTRACE or not) comes too: its network may be read
    all the same, and what it has to say of an address counts as one more.
    """
    seen = [os.readlink("/proc/self/ns/net")]
    yield "self"
    for pid in sorted(filter(str.isdigit, os.listdir("/proc")), key=int):
        with suppress(FileNotFoundError, ProcessLookupError):
            try:
                namespace = os.readlink(f"/proc/{pid}/ns/net")
            except PermissionError:
                yield pid
                continue
            if namespace not in seen:
                seen.append(namespace)
                yield pid


def _local(net: str, addresses: tuple[str, ...]) -> list[str]:
    """Which of ``addresses`` are local in the network namespace behind ``net`` (/proc/PID/net)."""
    four = _text(f"{net}/fib_trie").splitlines()
    local = {four[at].split()[-1] for at in range(len(four) - 1) if four[at + 1].strip() == "/32 host LOCAL"}
    six = {line.split()[0] for line in _text(f"{net}/if_inet6").splitlines() if line}
    return [
        address
        for address in addresses
        if address in local or (":" in address and ip_address(address).packed.hex() in six)
    ]


def _text(path: str) -> str:
    try:
        return vtime.read_text(path)
    except (FileNotFoundError, ProcessLookupError):
        return ""
