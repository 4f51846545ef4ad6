"""Files that other processes append to, and the load as a process of its own."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from tidegate.rehearse.loadspec import LoadSpec, Source, encode_spec
from tidegate.rehearse.samples import Sample, decode_line, encode_lines, quantile, tally
from tidegate.rehearse.stage import LoadFailed, LoadProcess, Tail

SAMPLE = Sample(0, "new", "node-1", 1.0, 1.0, 1.002, "ok", 200, "pod-1", "v1", "node-2")


def test_a_tail_takes_whole_lines_only_and_each_once(tmp_path: Path) -> None:
    file = tmp_path / "lines"
    tail = Tail(str(file), bytes.decode)
    assert tail.read() == []
    file.write_bytes(b"one\ntw")
    assert tail.read() == ["one"]
    with file.open("ab") as end:
        end.write(b"o\nthree\n")
    assert tail.read() == ["one", "two", "three"]
    assert tail.read() == ["one", "two", "three"]


def test_a_sample_survives_its_line() -> None:
    assert decode_line(encode_lines([SAMPLE]).rstrip()) == SAMPLE


def test_a_load_that_failed_is_an_error_not_an_empty_run(tmp_path: Path) -> None:
    async def ended() -> int:
        return 1

    load = LoadProcess(str(tmp_path / "none"), lambda: None, ended)
    with pytest.raises(LoadFailed, match="exit code 1"):
        asyncio.run(load.stop())


def test_samples_that_cannot_be_read_are_an_error(tmp_path: Path) -> None:
    async def ended() -> int:
        return 0

    file = tmp_path / "samples"
    file.write_bytes(b"[1,2]\n")
    with pytest.raises(LoadFailed, match="samples"):
        asyncio.run(LoadProcess(str(file), lambda: None, ended).stop())


def test_quantiles_are_nearest_ranks() -> None:
    assert quantile([], 0.5) == 0.0
    assert quantile([1.0, 2.0, 3.0, 4.0], 0.5) == 2.0
    assert quantile([1.0, 2.0, 3.0], 0.5) == 2.0
    assert quantile([1.0, 2.0, 3.0], 1.0) == 3.0
    assert quantile([5.0], 0.99) == 5.0


def test_a_tally_counts_late_starts_and_drops_by_cause() -> None:
    late = Sample(1, "new", "node-1", 1.0, 1.2, 1.3, "ok")
    lost = [
        Sample(number, "new", "node-1", 1.0, 1.0, 1.0, cause)
        for number, cause in enumerate(("reset", "refused", "reset"))
    ]
    counts = tally([SAMPLE, late, *lost])
    assert (counts.requests, counts.dropped, counts.late) == (5, 3, 1)
    assert counts.dropped_by_cause == (("refused", 1), ("reset", 2))


@pytest.mark.realtime
def test_the_load_keeps_its_schedule_over_real_sockets(tmp_path: Path) -> None:
    """Half a second of 400/s + 400/s against a server in this process: all answered, almost none late."""
    output = tmp_path / "samples"

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                body = b'{"pod":"p","version":"v1","node":"n"}'
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body))
                if b"Connection: close" in head:
                    break
        except asyncio.IncompleteReadError:
            pass
        writer.close()

    async def scene() -> int:
        server = await asyncio.start_server(answer, "127.0.0.1", 0, backlog=1024)
        port = server.sockets[0].getsockname()[1]
        sources = (Source("node-1", "127.0.0.11"), Source("node-2", "127.0.0.12"))
        spec = LoadSpec(host="127.0.0.1", port=port, sources=sources, output=str(output), seconds_max=0.5)
        command = (sys.executable, "-m", "tidegate.rehearse.real", encode_spec(spec))
        process = await asyncio.create_subprocess_exec(*command)
        code = await process.wait()
        server.close()
        return code

    assert asyncio.run(scene()) == 0
    samples = [decode_line(line) for line in output.read_bytes().splitlines()]
    assert len(samples) == 400
    assert {sample.outcome for sample in samples} == {"ok"}
    assert {sample.pod for sample in samples} == {"p"}
    assert tally(samples).late_fraction < 0.25  # the machine may be busy: the demo's own limit is 1 %
