"""The load accounts for every request, on virtual time against modelled processes."""

from __future__ import annotations

import asyncio
import itertools
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path

from tidegate import vtime
from tidegate.lab import echo
from tidegate.rehearse import load, samples
from tidegate.rehearse.loadspec import LoadSpec, Source, encode_spec
from tidegate.rehearse.samples import Sample, tally

HOST = "127.17.1.1"
PORT = 8080
SOURCES = (Source("node-1", "127.16.0.11"), Source("node-2", "127.16.0.12"))


def serve(**env: str) -> vtime.Process:
    """An echo process on the target's address."""
    base = {"POD_IP": HOST, "POD_NAME": "pod-1", "NODE_NAME": "node-9", "TIDEGATE_IMAGE": "tidegate/echo:v1"}
    return vtime.Process(echo.main, vtime.Program(env={**base, **env}), name="echo")


def run_load(
    tmp_path: Path,
    story: Callable[[], Awaitable[None]] | None = None,
    spec: dict[str, object] | None = None,
    env: dict[str, str] | None = None,
) -> list[Sample]:
    """Run a load against one echo (none when env is None) with ``story`` beside it; its samples by number."""
    output = tmp_path / "samples.jsonl"
    given = {"new_per_second": 50.0, "pool_per_second": 50.0, "seconds_max": 2.0, **(spec or {})}
    asked = LoadSpec(host=HOST, port=PORT, sources=SOURCES, output=str(output), **given)  # type: ignore[arg-type]

    async def scene() -> None:
        server = serve(**env) if env is not None else None
        process = vtime.Process(load.main, vtime.Program(argv=("load", encode_spec(asked))), name="load")
        if story is not None:
            await story()
        assert await process.wait() == 0, process.error
        if server is not None:
            server.signal(signal.SIGKILL)

    vtime.run(scene())
    return sorted((samples.decode_line(line) for line in output.read_bytes().splitlines()), key=lambda s: s.number)


def test_every_scheduled_request_is_accounted_for_once(tmp_path: Path) -> None:
    seen = run_load(tmp_path, env={})
    assert [sample.number for sample in seen] == list(range(200))
    assert {sample.outcome for sample in seen} == {"ok"}
    assert {(sample.pod, sample.version, sample.node) for sample in seen} == {("pod-1", "v1", "node-9")}
    assert tally(seen).late == 0


def test_requests_leave_at_their_lanes_rate_from_each_node_in_turn(tmp_path: Path) -> None:
    seen = [sample for sample in run_load(tmp_path, env={}) if sample.lane == "new"]
    gaps = {round(b.scheduled_at - a.scheduled_at, 4) for a, b in itertools.pairwise(seen)}
    assert gaps == {0.02}
    assert [sample.source for sample in seen[:4]] == ["node-1", "node-2", "node-1", "node-2"]


def test_a_load_with_nobody_listening_is_all_refused(tmp_path: Path) -> None:
    seen = run_load(tmp_path, env=None, spec={"requests_max": 30})
    assert len(seen) == 30
    assert {sample.outcome for sample in seen} == {"refused"}


def test_an_open_loop_keeps_its_rate_while_answers_stay_away(tmp_path: Path) -> None:
    seen = run_load(tmp_path, env={"LATENCY_MS": "6000"}, spec={"seconds_max": 1.0})
    assert len(seen) == 100
    assert {sample.outcome for sample in seen} == {"timeout"}
    assert {round(sample.ended_at - sample.scheduled_at, 3) for sample in seen} == {5.0}
    assert tally(seen).late == 0


def test_an_answer_just_inside_the_deadline_is_not_dropped(tmp_path: Path) -> None:
    seen = run_load(tmp_path, env={"LATENCY_MS": "4900"}, spec={"seconds_max": 0.5})
    assert {sample.outcome for sample in seen} == {"ok"}


def test_other_statuses_are_losses_by_name(tmp_path: Path) -> None:
    seen = run_load(tmp_path, env={}, spec={"path": "/nowhere", "requests_max": 10})
    assert {(sample.outcome, sample.status) for sample in seen} == {("non-2xx", 404)}


def test_a_killed_server_resets_what_was_in_flight_and_refuses_the_rest(tmp_path: Path) -> None:
    async def story() -> None:
        server = serve(LATENCY_MS="200")
        await asyncio.sleep(1.0)
        server.signal(signal.SIGKILL)

    seen = run_load(tmp_path, story=story)
    outcomes = [sample.outcome for sample in seen]
    first_reset = outcomes.index("reset")
    assert set(outcomes[:first_reset]) == {"ok"}
    assert 15 <= outcomes.count("reset") <= 25  # 0.2 s of 100/s were in flight
    assert outcomes[-50:] == ["refused"] * 50


def test_a_request_lost_on_a_kept_connection_knows_its_pod(tmp_path: Path) -> None:
    async def story() -> None:
        server = serve(LATENCY_MS="100")
        await asyncio.sleep(1.0)
        server.signal(signal.SIGKILL)

    seen = run_load(tmp_path, story=story)
    lost = [sample for sample in seen if sample.outcome == "reset" and sample.lane == "pool"]
    assert "pod-1" in {sample.pod for sample in lost}
    assert {sample.pod for sample in seen if sample.outcome == "reset" and sample.lane == "new"} == {""}


def test_an_idle_kept_connection_closed_by_the_server_is_not_a_loss(tmp_path: Path) -> None:
    async def story() -> None:
        first = serve(ON_SIGTERM="drain")
        await asyncio.sleep(1.005)  # between two requests of 20/s
        first.signal(signal.SIGTERM)
        await first.wait()
        serve(ON_SIGTERM="drain")

    seen = run_load(tmp_path, story=story, spec={"new_per_second": 0.0, "pool_per_second": 20.0})
    assert {sample.outcome for sample in seen} == {"ok"}


def test_a_kept_connection_is_retired_after_a_second_even_when_idle(tmp_path: Path) -> None:
    async def story() -> None:
        serve(ON_SIGTERM="ignore")
        await asyncio.sleep(1.5)  # one request every 2.5 s, the first at 1.3 s
        assert connections() == 1
        await asyncio.sleep(1.0)
        assert connections() == 0

    run_load(tmp_path, story=story, spec={"new_per_second": 0.0, "pool_per_second": 0.4, "seconds_max": 3.0})


def connections() -> int:
    """How many established connections end at the target."""
    text = vtime.read_text("/proc/net/tcp")
    port = f":{PORT:04X}"
    return sum(1 for line in text.splitlines()[1:] if port in line.split()[1] and line.split()[3] == "01")


def test_sigterm_ends_the_sending_and_waits_for_what_is_outstanding(tmp_path: Path) -> None:
    output = tmp_path / "samples.jsonl"
    spec = LoadSpec(host=HOST, port=PORT, sources=SOURCES, output=str(output), new_per_second=10.0, pool_per_second=0)

    async def scene() -> float:
        serve(LATENCY_MS="800")
        loop = asyncio.get_running_loop()
        process = vtime.Process(load.main, vtime.Program(argv=("load", encode_spec(spec))), name="load")
        await asyncio.sleep(1.0)
        process.signal(signal.SIGTERM)
        assert await process.wait() == 0
        return loop.time()

    ended_at = vtime.run(scene())
    seen = [samples.decode_line(line) for line in output.read_bytes().splitlines()]
    assert len(seen) == 10
    assert {sample.outcome for sample in seen} == {"ok"}
    assert 1.7 < ended_at < 1.9
