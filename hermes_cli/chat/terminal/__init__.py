"""The terminal of a conversation: what is seen of it (screen.py), and what is typed (keyboard.py)."""
