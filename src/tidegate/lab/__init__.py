"""A Kubernetes-compatible cluster in one pip install."""
