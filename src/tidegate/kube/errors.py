"""Errors of the API client, split by whose fault: ours, the server's, or the road between.

``ApiError`` carries the server's ``Status`` as it came. Foreign errors (aiohttp, sockets) are mapped once, at
the transport, to ``Unreachable``; the original is chained.
"""

from __future__ import annotations

from typing import Any

TROUBLE = (500, 502, 503, 504)
"""What an API server answers that cannot just now: etcd elects (500), it shuts down, or somebody before it gave up. Of
a write nobody then knows whether it stands."""


class KubeError(Exception):
    """Anything that kept an API call from being answered as asked."""


class Unreachable(KubeError):
    """No answer: refused, reset, timed out. Nothing is known about what the server did."""


class ApiError(KubeError):
    """The server answered with a ``Status`` of failure (``code``, ``reason`` and ``message`` as it sent them)."""

    def __init__(self, code: int, reason: str, message: str, status: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message
        self.status = status or {
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": message, "reason": reason, "code": code,
        }  # fmt: skip

    @property
    def is_not_found(self) -> bool:
        return self.code == 404

    @property
    def is_conflict(self) -> bool:
        """409 for a stale resourceVersion, a failed precondition or a name already taken; and the 422 that a patch with
        another object's uid is answered with (seen on 1.36)."""
        causes = (self.status.get("details") or {}).get("causes") or ()
        return self.code == 409 or any(cause.get("field") == "metadata.uid" for cause in causes)

    @property
    def is_trouble(self) -> bool:
        """The server's own trouble, or too much asked of it at once: nothing that was asked is wrong."""
        return self.code == 429 or self.code in TROUBLE

    @property
    def is_expired(self) -> bool:
        """410: the resourceVersion asked for is compacted away; list again."""
        return self.code == 410


class NoCertificate(Exception):
    """A folder has no usable certificate: says which file, and why."""


def from_status(status: dict[str, Any]) -> ApiError:
    """An ``ApiError`` from a decoded ``Status`` object."""
    code = int(status.get("code") or 500)
    return ApiError(code, str(status.get("reason") or ""), str(status.get("message") or "unknown error"), status)
