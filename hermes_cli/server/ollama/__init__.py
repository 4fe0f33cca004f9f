"""Ollama's API, for clients that speak no other: its requests are those of chats and completions under other names."""
