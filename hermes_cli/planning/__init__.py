"""Memory, placement, speed and quality, computed before anything is loaded: pure functions."""
