"""The question before a change, on a terminal: Ctrl-C there leaves at once, and nothing was changed."""

from __future__ import annotations

import os
import pty
import sys

import pytest

pytestmark = pytest.mark.realtime

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
    said = b""
    try:
        while b"[y/N]" not in said:
            said += os.read(terminal, 1024)
        os.write(terminal, key)
        while True:
            said += os.read(terminal, 1024)
    except OSError:  # the terminal of a process that has ended (EIO)
        pass
    finally:
        os.waitpid(child, 0)
        os.close(terminal)
    assert told in said.decode()
