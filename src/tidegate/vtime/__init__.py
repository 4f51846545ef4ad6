"""Time: the wall clock and a seeded virtual event loop with an in-memory network."""
