"""Releases: what to do next on the way from one revision to another, and why. Pure."""
