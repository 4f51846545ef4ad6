"""Whether this machine can have a lab with network ``kernel``, asked before anything of it is made."""

from __future__ import annotations

import os
import shutil
import threading

from tidegate.lab.network.namespaces import Namespace, leave_for_new
from tidegate.lab.network.netlink import Links
from tidegate.lab.network.seam import IPTABLES_1_36, NFT_1_36, SHAPES

TOOLS = (("nft", "nftables"), ("conntrack", "conntrack"))
"""Commands, and Debian's packages that bring them (Fedora: conntrack-tools)."""
IPTABLES = ("iptables-restore", "iptables")
_ROOT = "run it as root, or leave out --network for loopback addresses, which need none"


def missing(proxy: str = NFT_1_36) -> str:
    """Why not, and what to do next, or "". ``proxy`` is one of ``seam.SHAPES``."""
    if proxy not in SHAPES:
        return f"network kernel has no proxy {proxy}; it has {', '.join(SHAPES)}"
    if os.geteuid():
        return f"network kernel makes network namespaces, which is root's to do; {_ROOT}"
    needed = (*TOOLS, IPTABLES) if proxy == IPTABLES_1_36 else TOOLS
    absent = [(tool, package) for tool, package in needed if not shutil.which(tool)]
    if absent:
        tools = " and ".join(tool for tool, _ in absent)
        packages = " ".join(package for _, package in absent)
        noun, which = ("command", "package") if len(absent) == 1 else ("commands", "packages")
        return f"network kernel needs the {noun} {tools}: install the {which} {packages}"
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
