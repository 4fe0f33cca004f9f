"""Conversations on disk: what they are called, how they are written and read, and what they look like elsewhere."""
