"""The terminal of a conversation: what is seen of it (terminal_view.py), and what is typed (keyboard.py)."""
