"""Observe, decide, act: level-triggered ticks of bounded work."""
