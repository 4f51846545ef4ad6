"""Log lines of the operator: one JSON object each. Names and reasons go in, contents of objects never do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import msgspec

from tidegate import vtime

Level = Literal["info", "warning", "error"]
TEXT_LENGTH_MAX = 500
_encode = msgspec.json.Encoder(order="deterministic").encode


class Log:
    """``line`` takes one line. Fields are texts and numbers; a long text is cut."""

    def __init__(self, line: Callable[[str], None]) -> None:
        self._line = line

    def __call__(self, message: str, level: Level = "info", **fields: str | float | int) -> None:
        at = vtime.now().isoformat(timespec="milliseconds").replace("+00:00", "Z")
        short = {key: one[:TEXT_LENGTH_MAX] if isinstance(one, str) else one for key, one in fields.items()}
        said = {"at": at, "level": level, "message": message[:TEXT_LENGTH_MAX], **short}
        self._line(_encode(said).decode())
