"""Tidegate: a pod ends only after every observer of its endpoints has been seen to let go."""

__version__ = "0.1.0"
