"""The question before a change, on a terminal: Ctrl-C there leaves at once, and nothing was changed."""

from __future__ import annotations

import contextlib
import os
import pty
import select
import signal
import sys
import time

import pytest

pytestmark = pytest.mark.realtime

PATIENCE_SECONDS = 20.0
ASKED = """
import asyncio
from tidegate.cli import question

async def ask():
    print("wanted", question.is_wanted(False))

asyncio.run(ask())
"""


@pytest.mark.parametrize(("key", "told"), [(b"\x03", "nothing was changed"), (b"y\n", "wanted True")])
def test_a_key_at_the_question_is_heard_at_once(key, told):
    child, terminal = pty.fork()
    if not child:
        os.execv(sys.executable, [sys.executable, "-c", ASKED])
    said, until = b"", time.monotonic() + PATIENCE_SECONDS  # realtime: a process and its terminal
    try:
        while time.monotonic() < until:
            if select.select([terminal], [], [], 0.3)[0]:
                said += os.read(terminal, 1024)
            elif b"[y/N]" in said:  # a terminal that is being set up may drop what was typed ahead: type again
                os.write(terminal, key)
    except OSError:  # the terminal of a process that has ended (EIO)
        pass
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(terminal)
    assert told in said.decode()
