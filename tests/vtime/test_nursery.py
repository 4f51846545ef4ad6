"""The nursery has an order."""

from __future__ import annotations

import asyncio

import pytest

from tidegate import vtime


def test_the_first_error_cancels_the_others_in_start_order():
    stopped: list[int] = []

    async def sleeper(number):
        try:
            await asyncio.sleep(100)
        finally:
            stopped.append(number)

    async def failing():
        await asyncio.sleep(1)
        raise ValueError("boom")

    async def story():
        async with vtime.Nursery() as nursery:
            for number in range(5):
                nursery.start(sleeper(number))
            nursery.start(failing())

    with pytest.raises(ValueError, match="boom"):
        vtime.run(story())
    assert stopped == [0, 1, 2, 3, 4]


def test_an_error_interrupts_a_body_that_still_waits():
    async def failing():
        raise ValueError("boom")

    async def story():
        async with vtime.Nursery() as nursery:
            nursery.start(failing())
            await asyncio.sleep(100)

    with pytest.raises(ValueError, match="boom"):
        vtime.run(story())


def test_cancelling_from_outside_cancels_everything_and_is_passed_on():
    stopped = []

    async def sleeper():
        try:
            await asyncio.sleep(100)
        finally:
            stopped.append(True)

    async def group():
        async with vtime.Nursery() as nursery:
            nursery.start(sleeper())
            nursery.start(sleeper())

    async def story():
        task = asyncio.get_running_loop().create_task(group())
        await asyncio.sleep(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    vtime.run(story())
    assert stopped == [True, True]
