"""Thin async Kubernetes API client behind one seam: exchange(request) -> response."""
