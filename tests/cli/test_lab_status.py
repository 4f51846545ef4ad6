"""What ``tidegate lab status`` says of a lab and its faults."""

from __future__ import annotations

import msgspec
import pytest

from tidegate import vtime
from tidegate.cli.lab import _print_status
from tidegate.lab.config import LabConfig
from tidegate.lab.faults import Fault
from tidegate.lab.virtual import VirtualLab


def told(capsys, *faults):
    """The lines printed for a two-node lab with these faults, its status taken as the lab's API sends it."""

    async def story():
        async with VirtualLab(LabConfig(nodes=2)) as lab:
            for fault in faults:
                lab.lab.faults.apply(fault)
            return msgspec.json.decode(msgspec.json.encode(lab.lab.status()))

    _print_status({"state": "up", "pid": 1, "started_at": "2026-11-21T10:00:00+00:00", **vtime.run(story())})
    return capsys.readouterr().out.splitlines()


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (Fault("proxy-freeze", "node-2", 20), "proxy-freeze 20.0 s"),
        (Fault("proxy-lag", "node-2", 8), "proxy-lag 8.0 s"),
        (Fault("proxy-kill", "node-2", 5), "proxy-kill 5.0 s"),
        (Fault("proxy-kill", "node-2"), "proxy-kill until proxy-restart"),
    ],
)
def test_a_fault_stands_beside_its_node_with_how_long_it_lasts(capsys, fault, words):
    assert told(capsys, fault) == [
        'lab "default" is up since 2026-11-21T10:00:00+00:00: http://127.16.0.1:6443',
        "  node-1  127.16.0.11",
        f"  node-2  127.16.0.12  {words}",
    ]
