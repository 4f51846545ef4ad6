"""The ledger's file: for its owner's eyes, bounded, whole lines whoever writes beside us, and never in the way."""

from __future__ import annotations

import multiprocessing
import os
import stat

import pytest

from tidegate.drain.ledger import Entry
from tidegate.engine.ledger import Ledger


def entry(number, why=""):
    return Entry(id=f"{number:05}", pod=f"echo-{number}", why=why)


def test_it_is_the_owners_alone(tmp_path):
    path = tmp_path / "state" / "ledger.jsonl"
    old = os.umask(0)
    try:
        Ledger(str(path)).write(entry(1))
    finally:
        os.umask(old)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_a_full_file_is_put_aside_once_and_then_forgotten(tmp_path):
    ledger = Ledger(str(tmp_path / "ledger.jsonl"), bytes_max=20_000)
    for number in range(400):
        ledger.write(entry(number))
    sizes = [file.stat().st_size for file in tmp_path.iterdir()]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["ledger.jsonl", "ledger.jsonl.1"]
    assert max(sizes) <= 20_000
    kept = [one.id for one in ledger.read().entries]
    assert kept == [f"{number:05}" for number in range(400 - len(kept), 400)], "the newest, in order, none missing"


def write_some(path, first):
    ledger = Ledger(path, bytes_max=30_000)
    for number in range(first, first + 40):
        ledger.write(entry(number, "x" * 200))


def test_lines_of_several_processes_stay_whole(tmp_path):
    path = str(tmp_path / "ledger.jsonl")
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=write_some, args=(path, 1000 * n)) for n in range(4)]
    for one in writers:
        one.start()
    for one in writers:
        one.join(30)
    read = Ledger(path).read()
    assert read.unreadable == 0
    assert len({one.id for one in read.entries}) == len(read.entries) > 20


def test_a_line_that_was_cut_short_costs_itself_only(tmp_path):
    path = tmp_path / "ledger.jsonl"
    ledger = Ledger(str(path))
    ledger.write(entry(1))
    path.write_bytes(path.read_bytes() + b'{"id":"00002","pod')
    ledger.write(entry(3))
    read = ledger.read()
    assert ([one.id for one in read.entries], read.unreadable) == (["00001", "00003"], 1)


@pytest.mark.parametrize("where", ["/dev/full", "/proc/nowhere/ledger.jsonl"])
def test_a_disk_that_takes_nothing_is_noted_and_stops_nobody(where):
    ledger = Ledger(where)
    ledger.write(entry(1))
    assert where in ledger.failure


def test_a_link_is_not_followed(tmp_path):
    target = tmp_path / "precious"
    target.write_text("mine")
    (tmp_path / "ledger.jsonl").symlink_to(target)
    ledger = Ledger(str(tmp_path / "ledger.jsonl"))
    ledger.write(entry(1))
    assert ledger.failure and target.read_text() == "mine"
