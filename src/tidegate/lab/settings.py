"""A lab's settings as plain data: what crosses a command line into another process."""

from __future__ import annotations

from dataclasses import dataclass

from tidegate import vtime
from tidegate.lab.config import LOOPBACK, Addon, Addressing, LabConfig


@dataclass(frozen=True, slots=True)
class LabSettings:
    """``LabConfig`` without objects: add-ons are named "module:attribute"."""

    name: str = "default"
    nodes: int = 3
    seed: int = 0
    block: int = 16
    port: int = 6443
    min_sync_seconds: float = 1.0
    addons: tuple[str, ...] = ()
    zones: int = 0
    dual_stack: bool = False
    dns: int = 0
    dns_cache_seconds: int = 30
    network: str = LOOPBACK
    proxy: str = "nft-1.36"
    addon_options: tuple[tuple[str, str], ...] = ()
    tls: bool = False

    @property
    def addressing(self) -> Addressing:
        return Addressing(self.block, self.port, self.network)

    def config(self) -> LabConfig:
        """The configuration, with the add-ons loaded."""
        return LabConfig(
            name=self.name,
            nodes=self.nodes,
            seed=self.seed,
            addressing=self.addressing,
            min_sync_seconds=self.min_sync_seconds,
            addons=tuple(_load(name) for name in self.addons),
            zones=self.zones,
            dual_stack=self.dual_stack,
            dns=self.dns,
            dns_cache_seconds=self.dns_cache_seconds,
            proxy=self.proxy,
            addon_options=tuple((name, value) for name, value in self.addon_options),
        )


def _load(name: str) -> Addon:
    loaded: object = vtime.entrypoint(name)
    if not isinstance(loaded, Addon):
        raise TypeError(f"{name} is not an add-on")
    return loaded
