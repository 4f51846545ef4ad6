"""A finding: what somebody ought to know about an object, in a sentence, and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """``name`` is the kind of finding and stable; ``subject`` is ``KIND/NAMESPACE/NAME``; ``next_step`` may be a
    command."""

    name: str
    subject: str
    sentence: str
    next_step: str

    def __str__(self) -> str:
        return f"{self.sentence}: {self.next_step}" if self.next_step else self.sentence
