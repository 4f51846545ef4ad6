"""The public async Python API."""
