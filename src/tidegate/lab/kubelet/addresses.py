"""Pod addresses of one node: next-fit over a /24, so that a freed address is the last to be handed out again."""

from __future__ import annotations

FIRST_HOST = 2
LAST_HOST = 254


class AddressesExhausted(Exception):
    """Every pod address of the node is taken."""


class PodAddresses:
    """Allocates ``prefix``.2 to ``prefix``.254. ``prefix`` is three octets (``Addressing.pod_prefix``).

    Re-use is what hides bugs: an old endpoint that points at a new pod looks healthy. Real CNIs (host-local) walk
    round-robin for the same reason.
    """

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._taken: set[int] = set()
        self._last = FIRST_HOST - 1

    def take(self) -> str:
        """The next free address. Raises ``AddressesExhausted``."""
        for _ in range(FIRST_HOST, LAST_HOST + 1):
            self._last = self._last + 1 if self._last < LAST_HOST else FIRST_HOST
            if self._last not in self._taken:
                self._taken.add(self._last)
                return f"{self._prefix}.{self._last}"
        raise AddressesExhausted(f"no pod address is free in {self._prefix}.0/24")

    def release(self, address: str) -> None:
        """Give one back; an address that is not ours (hostNetwork) is passed over."""
        prefix, _, host = address.rpartition(".")
        if prefix == self._prefix:
            self._taken.discard(int(host))
