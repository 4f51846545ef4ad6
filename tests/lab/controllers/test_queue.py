"""The work queue: once each, never twice at a time, slower after each failure."""

from __future__ import annotations

import asyncio

from tidegate import vtime
from tidegate.lab.controllers.queue import WorkQueue

A, B = ("ns", "a"), ("ns", "b")


def test_a_key_added_twice_is_worked_on_once():
    async def story():
        queue = WorkQueue()
        queue.add(A)
        queue.add(B)
        queue.add(A)
        assert [await queue.get(), await queue.get()] == [A, B]
        queue.done(A)
        queue.done(B)
        waiting = asyncio.ensure_future(queue.get())
        await asyncio.sleep(1)
        assert not waiting.done()
        waiting.cancel()

    vtime.run(story())


def test_a_key_added_while_it_is_worked_on_comes_again_but_only_afterwards():
    async def story():
        queue = WorkQueue()
        queue.add(A)
        assert await queue.get() == A
        queue.add(A)
        second = asyncio.ensure_future(queue.get())
        await asyncio.sleep(1)
        assert not second.done()
        queue.done(A)
        assert await second == A

    vtime.run(story())


def test_each_failure_of_a_key_doubles_its_wait_until_it_is_forgotten():
    async def story():
        loop, queue, waits = asyncio.get_running_loop(), WorkQueue(), []
        for _ in range(4):
            begin = loop.time()
            queue.retry(A)
            queue.done(await queue.get())
            waits.append(round((loop.time() - begin) * 1000))
        assert waits == [5, 10, 20, 40]
        queue.forget(A)
        begin = loop.time()
        queue.retry(A)
        await queue.get()
        assert round((loop.time() - begin) * 1000) == 5

    vtime.run(story())


def test_of_several_alarms_for_one_key_the_earliest_rings():
    async def story():
        loop, queue = asyncio.get_running_loop(), WorkQueue()
        queue.add_after(A, 10)
        queue.add_after(A, 2)
        queue.add_after(A, 7)
        assert await queue.get() == A
        assert loop.time() == 2
        queue.done(A)
        again = asyncio.ensure_future(queue.get())
        await asyncio.sleep(60)
        assert not again.done()
        again.cancel()

    vtime.run(story())


def test_a_cancelled_worker_loses_no_key():
    async def story():
        queue = WorkQueue()
        first, second = asyncio.ensure_future(queue.get()), asyncio.ensure_future(queue.get())
        await asyncio.sleep(0)
        queue.add(A)
        first.cancel()
        assert await second == A

    vtime.run(story())
