"""nftables as the kernel tells it over netlink: read once, then followed commit by commit.

What ``nft`` prints is read by ``dataplane/nft.py``.

- ``mirror.Mirror``: a family's rules; a question reads again only what commits have touched. ``table``: of one table;
  ``kept.KeptChain``: a long chain, in the kernel's order rule for rule; ``source``: where all is read from.
- ``wire.Wiring``: messages -> chains of ``rules.py``; ``rule``, ``alike``, ``registers``, ``sets`` take them apart.
- ``store.SetStore``, ``ends.Ends``, ``spool.Spool``: what is kept, and how little of it.
"""
