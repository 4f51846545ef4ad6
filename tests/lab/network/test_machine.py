"""What a machine lacks for network ``kernel`` is said in one line with the next step, before anything is made."""

from __future__ import annotations

import os

import pytest

from tidegate.lab import boot
from tidegate.lab.folder import LabError, known_labs
from tidegate.lab.network import machine
from tidegate.lab.settings import LabSettings


def test_who_is_not_root_is_told_what_needs_none(monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert machine.missing() == (
        "network kernel makes network namespaces, which is root's to do; "
        "run it as root, or leave out --network for loopback addresses, which need none"
    )


def test_tools_that_are_missing_are_named_with_their_packages(monkeypatch, tmp_path):
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert (
        machine.missing()
        == "network kernel needs the commands nft and conntrack: install the packages nftables conntrack"
    )


def test_nothing_is_left_of_a_lab_that_cannot_be(monkeypatch, tmp_path):
    monkeypatch.setenv("TIDEGATE_STATE", str(tmp_path))
    monkeypatch.setattr(machine, "missing", lambda proxy: "no")
    with pytest.raises(LabError, match="no"):
        boot.start(LabSettings(network="kernel"))
    assert known_labs() == []
