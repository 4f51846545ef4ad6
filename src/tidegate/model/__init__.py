"""Frozen nouns decoded from Kubernetes JSON."""
