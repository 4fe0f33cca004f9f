"""Slash commands of a conversation, one file per subject; registry.py lists all of them."""
