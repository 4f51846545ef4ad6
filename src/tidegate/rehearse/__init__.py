"""Load, timeline, verdict and report over a lab."""
