"""An HAProxy fed over its Runtime API, as haproxytech's controller does it: slots are filled and emptied.

Everything it holds is read back from it before each pass, so a feeder that was restarted goes on where it was.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from tidegate.rehearse.ingress.settings import HAPROXY_FENCE, HOSTS_MAP, SITES, SLOTS, site
from tidegate.rehearse.ingress.sites import Member, Sites

Address = tuple[str, int]
ANSWER_SECONDS = 2.0
_MAINTENANCE = 0x01


class FedHAProxy:
    """``Fed``, by the stats socket at ``host:port``. Members that end are taken out, as its controllers do."""

    def __init__(self, host: str, port: int) -> None:
        self._host, self._port = host, port

    async def apply(self, sites: Sites) -> None:
        """Raises ``OSError`` while it is not there."""
        hosts = await self._hosts()
        free = [one for one in map(site, range(1, SITES + 1)) if one not in hosts.values()]
        slots = await self._slots()
        for host, backend in sites.backends.items():
            if host not in hosts:
                if not free:
                    raise OSError(f"more than {SITES} hosts: {host} is not served")
                hosts[host] = free.pop(0)
                await self._tell([f"add map {HOSTS_MAP} {host} {hosts[host]}"])
            await self._fill(hosts[host], slots, sites.members[backend])
        for host in [one for one in hosts if one not in sites.backends]:
            await self._tell([f"del map {HOSTS_MAP} {host}"])
            await self._fill(hosts[host], slots, ())
        await self._fill(HAPROXY_FENCE, slots, sites.fence)

    async def _fill(self, backend: str, slots: dict[str, dict[str, Address | None]], members: Iterable[Member]) -> None:
        held = slots[backend]
        wanted = [(one.address, one.port) for one in members if not one.is_ending]
        commands = []
        for slot, address in held.items():
            if address is not None and address not in wanted:
                commands += [f"set server {backend}/{slot} state maint"]
                held[slot] = None
        for host, port in dict.fromkeys(wanted):
            if (host, port) in held.values():
                continue
            free = next((slot for slot, address in held.items() if address is None), None)
            if free is None:
                raise OSError(f"{backend} has {SLOTS} slots, and more members")
            command = f"set server {backend}/{free}"
            commands += [f"{command} addr {host} port {port}", f"{command} state ready"]
            held[free] = (host, port)
        await self._tell(commands)

    async def _hosts(self) -> dict[str, str]:
        """Host -> backend, of the map: "0x55d0 echo.example site-1"."""
        lines = (await self._tell([f"show map {HOSTS_MAP}"])).splitlines()
        return {fields[1]: fields[2] for line in lines if len(fields := line.split()) == 3}

    async def _slots(self) -> dict[str, dict[str, Address | None]]:
        """By backend and slot, the address in it; None for one that rests."""
        lines = (await self._tell(["show servers state"])).splitlines()
        columns = next((line[2:].split() for line in lines if line.startswith("# ")), None)
        if columns is None:
            raise OSError("no answer that is understood to `show servers state`")
        found: dict[str, dict[str, Address | None]] = {}
        for line in lines[2:]:
            server = dict(zip(columns, line.split(), strict=False))
            if "srv_name" in server:
                rests = int(server["srv_admin_state"]) & _MAINTENANCE or server["srv_addr"] == "127.0.0.1"
                address = None if rests else (server["srv_addr"], int(server["srv_port"]))
                found.setdefault(server["be_name"], {})[server["srv_name"]] = address
        return found

    async def _tell(self, commands: list[str]) -> str:
        """One connection for all of them. Raises ``OSError``."""
        if not commands:
            return ""
        async with asyncio.timeout(ANSWER_SECONDS):  # TimeoutError is an OSError
            reader, writer = await asyncio.open_connection(self._host, self._port)
            try:
                writer.write(f"{'; '.join(commands)}\n".encode())
                return (await reader.read(-1)).decode(errors="replace")
            finally:
                writer.close()
