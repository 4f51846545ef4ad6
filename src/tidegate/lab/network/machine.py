"""Whether this machine can have a lab with network ``kernel``, asked before anything of it is made."""

from __future__ import annotations

import os
import shutil
import threading

from tidegate.lab.network.namespaces import Namespace, leave_for_new
from tidegate.lab.network.netlink import Links

TOOLS = (("nft", "nftables"), ("conntrack", "conntrack"))
"""Commands, and the packages that bring them on Debian and Fedora alike (there: conntrack-tools)."""
_ROOT = "run it as root, or leave out --network for loopback addresses, which need none"


def missing() -> str:
    """Why not, and what to do next, or ""."""
    if os.geteuid():
        return f"network kernel makes network namespaces, which is root's to do; {_ROOT}"
    absent = [(tool, package) for tool, package in TOOLS if not shutil.which(tool)]
    if absent:
        tools = " and ".join(tool for tool, _ in absent)
        packages = " ".join(package for _, package in absent)
        return f"network kernel needs the command {tools}: install the package {packages}"
    problems: list[str] = []
    thread = threading.Thread(target=lambda: problems.append(_try()))
    thread.start()
    thread.join()
    return problems[0]


def _try() -> str:
    """In a thread of its own, which leaves this machine's network for good."""
    try:
        leave_for_new()
        there = Namespace.make("there")
    except OSError as error:
        return f"no network namespace can be made here: {error}; {_ROOT} (a container needs CAP_SYS_ADMIN)"
    try:
        with Links() as links:
            links.bridge("bridge", "10.0.0.1")
            links.veth("here", "there", "10.0.0.2", there.fileno())
    except OSError as error:
        return f"this kernel makes no bridge or virtual Ethernet pair ({error}): modprobe bridge veth"
    finally:
        there.close()
    return ""
