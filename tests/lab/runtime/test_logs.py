"""Container logs as ``kubectl logs`` reads them."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from tidegate import vtime
from tidegate.lab.runtime.logs import LINE_BYTES_MAX, LOG_BYTES_MAX, LogBook, LogOptions, NoLog
from tidegate.lab.runtime.spec import ContainerSpec


def spec(uid="u1", attempt=0, path=""):
    return ContainerSpec("lab", "default", "web", uid, "app", "i", attempt=attempt, log_path=path)


async def text(book, **options):
    return b"".join([chunk async for chunk in book.logs("default", "web", "app", LogOptions(**options))])


@pytest.fixture(params=["memory", "file"])
def path(request, tmp_path):
    return "" if request.param == "memory" else str(tmp_path / "web" / "0.log")


def test_lines_come_back_as_written_and_the_last_unfinished_one_too(path):
    async def story():
        book = LogBook()
        log = book.open(spec(path=path))
        log.write("stdout", b"one\ntw")
        log.write("stderr", b"oops\n")
        log.write("stdout", b"o\nthree")
        assert await text(book) == b"one\noops\ntwo\n"
        log.close()
        assert await text(book) == b"one\noops\ntwo\nthree\n"

    vtime.run(story())


def test_tail_since_limit_and_timestamps(path):
    async def story():
        book = LogBook()
        log = book.open(spec(path=path))
        for number in range(5):
            log.write("stdout", f"line {number}\n".encode())
            await asyncio.sleep(1)
        assert await text(book, tail_lines=2) == b"line 3\nline 4\n"
        assert await text(book, tail_lines=0) == b""
        assert await text(book, since=vtime.now() - timedelta(seconds=2)) == b"line 3\nline 4\n"
        assert await text(book, limit_bytes=9) == b"line 0\nli"
        assert await text(book, tail_lines=1, timestamps=True) == b"2026-01-01T00:00:04.000000000Z line 4\n"

    vtime.run(story())


def test_a_follower_sees_lines_as_they_come_and_ends_with_the_container(path):
    async def story():
        book = LogBook()
        log = book.open(spec(path=path))
        log.write("stdout", b"old\n")
        seen = []

        async def follow():
            async for chunk in book.logs("default", "web", "app", LogOptions(follow=True, tail_lines=0)):
                seen.append((asyncio.get_running_loop().time(), chunk))

        follower = asyncio.create_task(follow())
        await asyncio.sleep(1)
        log.write("stdout", b"new\n")
        await asyncio.sleep(1)
        log.write("stderr", b"last\n")
        log.close()
        await follower
        assert seen == [(1.0, b"new\n"), (2.0, b"last\n")]

    vtime.run(story())


def test_the_previous_attempt_can_be_read_and_older_ones_are_gone():
    async def story():
        book = LogBook()
        for attempt in range(3):
            log = book.open(spec(attempt=attempt))
            log.write("stdout", f"attempt {attempt}\n".encode())
            log.close()
        assert (await text(book), await text(book, previous=True)) == (b"attempt 2\n", b"attempt 1\n")

    vtime.run(story())


def test_a_new_pod_of_the_same_name_has_its_own_log():
    async def story():
        book = LogBook()
        book.open(spec("u1")).write("stdout", b"old\n")
        book.open(spec("u2")).write("stdout", b"new\n")
        assert await text(book) == b"new\n"
        with pytest.raises(NoLog):
            await text(book, previous=True)
        book.forget("u1")  # the old pod's end comes later than the new one's start
        assert await text(book) == b"new\n"
        book.forget("u2")
        with pytest.raises(NoLog):
            await text(book)

    vtime.run(story())


def test_a_very_long_line_is_stored_in_parts_and_read_as_one(path):
    async def story():
        book = LogBook()
        log = book.open(spec(path=path))
        line = b"x" * (3 * LINE_BYTES_MAX + 5)
        log.write("stdout", line + b"\nnext\n")
        assert await text(book) == line + b"\nnext\n"

    vtime.run(story())


def test_a_log_file_is_rotated_and_a_follower_goes_on(tmp_path):
    async def story():
        book = LogBook()
        path = tmp_path / "0.log"
        log = book.open(spec(path=str(path)))
        lines = (b"y" * 8000 + b"\n") * 1000
        log.write("stdout", lines)
        got = book.logs("default", "web", "app", LogOptions(follow=True, tail_lines=1))
        assert await anext(got) == b"y" * 8000 + b"\n"
        log.write("stdout", lines)
        assert path.stat().st_size < LOG_BYTES_MAX
        assert len(await anext(got)) == len(lines)
        assert (tmp_path / "0.log.1").exists()

    vtime.run(story())
