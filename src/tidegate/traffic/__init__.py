"""Who gets traffic and why; label arithmetic."""
