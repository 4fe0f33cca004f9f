"""One file per command: parse arguments, call a room, print. Imported only when the command is typed."""
