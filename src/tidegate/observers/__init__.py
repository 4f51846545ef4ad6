"""Fetch raw dumps from the parties that hold their own copy of the endpoints."""
