"""The work queue: each key once, one worker at a time, later after each failure."""

from __future__ import annotations

import asyncio
import itertools
import random

from tidegate import vtime
from tidegate.operator.queue import BACKOFF_SECONDS_MAX, JITTER, WorkQueue


def play(story):
    return vtime.run(story(), limit_seconds=100_000)


def test_a_key_that_is_added_often_is_looked_at_once():
    async def story():
        queue = WorkQueue(random.Random(0))
        for _ in range(5):
            queue.add("a")
        queue.add("b")
        assert [await queue.get(), await queue.get()] == ["a", "b"] and len(queue) == 0

    play(story)


def test_a_key_that_is_added_while_it_is_worked_on_comes_again_afterwards_and_to_nobody_else_meanwhile():
    async def story():
        queue = WorkQueue(random.Random(0))
        queue.add("a")
        key = await queue.get()
        queue.add("a")
        waiting = asyncio.create_task(queue.get())
        await asyncio.sleep(10)
        assert not waiting.done()
        queue.done(key)
        assert await waiting == "a"

    play(story)


def test_what_fails_again_waits_longer_each_time_and_never_for_ever():
    async def story():
        queue = WorkQueue(random.Random(0))
        delays = [queue.add_failed("a") for _ in range(12)]
        assert all(a < b for a, b in itertools.pairwise(delays[:7]))
        assert max(delays) <= BACKOFF_SECONDS_MAX * (1 + JITTER)
        queue.forget("a")
        assert queue.add_failed("a") < 0.3

    play(story)


def test_of_two_delays_the_earlier_counts_and_at_once_beats_both():
    async def story():
        queue, loop = WorkQueue(random.Random(0)), asyncio.get_running_loop()
        began = loop.time()
        queue.add_after("a", 30)
        queue.add_after("a", 5)
        queue.add_after("a", 20)
        await queue.get()
        assert loop.time() - began == 5
        queue.done("a")
        queue.add_after("a", 30)
        queue.add("a")
        assert await queue.get() == "a" and queue.delayed == 0

    play(story)


def test_the_same_seed_draws_the_same_delays():
    async def story():
        return [WorkQueue(random.Random(7)).add_failed("a") for _ in range(2)]

    first, second = play(story)
    assert first == second
