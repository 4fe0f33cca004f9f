"""GGUF headers, read without trusting the file."""
