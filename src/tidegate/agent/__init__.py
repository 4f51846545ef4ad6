"""Node agent, holder and coordinator."""
