"""Random stories of people who cut, isolate, restore, drain and prepare while everything around them breaks."""
