"""Commands of a conversation: lines that begin with a slash. Each file holds those of one kind."""
