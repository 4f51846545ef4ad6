"""Run one of the kernel's own tools: no shell, a time limit, a limit to what it may print."""

from __future__ import annotations

import os
import subprocess
import tempfile
import threading

SECONDS = 10.0
"""iptables-save of 10,000 Services takes about one; a machine under load takes several."""
BYTES_MAX = 128 << 20
_ERROR_BYTES = 300


class CommandFailed(Exception):
    """It is not there, it failed, took too long or printed too much: nothing is known of what it was to show."""


def output(*words: str, text: str = "", seconds: float = SECONDS) -> bytes:
    """What the command prints; ``text`` is its standard input. Raises ``CommandFailed``."""
    name = " ".join(words[:3])
    with tempfile.TemporaryFile() as errors, tempfile.TemporaryFile() as given:
        given.write(text.encode())
        given.seek(0)
        environment = {**os.environ, "LC_ALL": "C"}
        try:
            process = subprocess.Popen(words, stdin=given, stdout=subprocess.PIPE, stderr=errors, env=environment)
        except OSError as error:
            raise CommandFailed(f"{name}: {error.strerror}") from error
        late = threading.Timer(seconds, process.kill)
        late.start()
        try:
            assert process.stdout is not None
            printed = process.stdout.read(BYTES_MAX + 1)
            if len(printed) > BYTES_MAX:
                raise CommandFailed(f"{name}: printed more than {BYTES_MAX} bytes")
            code = process.wait()
        finally:
            is_late = late.finished.is_set()
            late.cancel()
            process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()
        if code:
            errors.seek(0)
            said = errors.read(_ERROR_BYTES).decode(errors="replace").strip()
            raise CommandFailed(f"{name}: no end after {seconds:g} s" if is_late else f"{name}: exit {code}: {said}")
        return printed
