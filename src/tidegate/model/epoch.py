"""An epoch: the number a fence shows, and its spelling as the one endpoint of the fence's EndpointSlice.

Why an endpoint: it is the one thing every data plane copies into its own state for us, in the same watch and the
same transaction as the routes it fences. IPv4 gives 17 bits of address (198.18.0.0/15, the benchmarking network of
RFC 2544: nobody ever connects to it) and 16 bits of port; port 0 is no endpoint, so ``SIZE`` is 2**17 * 65535, a
little under 33 bits. IPv6 has 64 bits of address (2001:2::/48, RFC 5180) and carries the same port as a check.

Serial arithmetic (RFC 1982): of two epochs the later is the one less than half the circle ahead. At ten epochs a
second the circle takes 27 years, so no number is met twice while a proxy could still show its first use.
The *install* id keeps two installations apart: epochs of different installs are never comparable.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from tidegate.model.endpoint import Endpoint

PORTS = 65535
SIZE = 2**17 * PORTS
_BASE4 = int(IPv4Address("198.18.0.0"))
_BASE6 = int(IPv6Address("2001:2::"))


@dataclass(frozen=True, slots=True)
class Epoch:
    """Number ``number`` (0 <= number < SIZE) of installation ``install``. Prints as ``install/number``."""

    install: str
    number: int

    def __post_init__(self) -> None:
        if not 0 <= self.number < SIZE:
            raise ValueError(f"no epoch has the number {self.number}: 0 <= number < {SIZE}")

    def __str__(self) -> str:
        return f"{self.install}/{self.number}"

    @classmethod
    def parse(cls, text: str) -> Epoch:
        """From ``install/number``. Raises ``ValueError``."""
        install, separator, number = text.rpartition("/")
        if not separator or not number.isascii() or not number.isdigit():
            raise ValueError(f"not an epoch: {text!r}")
        return cls(install, int(number))

    def next(self) -> Epoch:
        """The epoch after this one; after the last comes 0."""
        return Epoch(self.install, (self.number + 1) % SIZE)

    def reaches(self, wanted: Epoch) -> bool:
        """Whether this epoch is ``wanted`` or later. Never, when the installs differ."""
        return self.install == wanted.install and (self.number - wanted.number) % SIZE < (SIZE + 1) // 2

    def endpoint4(self) -> Endpoint:
        """The IPv4 endpoint that shows this epoch."""
        high, low = divmod(self.number, PORTS)
        return Endpoint(str(IPv4Address(_BASE4 + high)), low + 1)

    def endpoint6(self) -> Endpoint:
        """The IPv6 endpoint that shows this epoch."""
        return Endpoint(str(IPv6Address(_BASE6 + self.number)), self.number % PORTS + 1)

    @classmethod
    def of_endpoint(cls, install: str, endpoint: Endpoint) -> Epoch:
        """The epoch an endpoint shows. Raises ``ValueError`` for an endpoint that is no fence's."""
        if ":" in endpoint.address:
            number = int(IPv6Address(endpoint.address)) - _BASE6
            valid = 0 <= number < SIZE and endpoint.port == number % PORTS + 1
        else:
            high = int(IPv4Address(endpoint.address)) - _BASE4
            number = high * PORTS + endpoint.port - 1
            valid = 0 <= high < 2**17 and 1 <= endpoint.port <= PORTS
        if not valid:
            raise ValueError(f"{endpoint} shows no epoch")
        return cls(install, number)


def earliest(epochs: tuple[Epoch, ...]) -> Epoch:
    """The least advanced of some epochs of one install (two address families of one node sync apart)."""
    least = epochs[0]
    for epoch in epochs[1:]:
        if not epoch.reaches(least):
            least = epoch
    return least


def earliest_by_install(epochs: tuple[Epoch, ...]) -> tuple[Epoch, ...]:
    """The least advanced epoch of each install, in the order met."""
    installs = dict.fromkeys(epoch.install for epoch in epochs)
    return tuple(earliest(tuple(epoch for epoch in epochs if epoch.install == install)) for install in installs)
