"""What this machine has: memory, bandwidth, and what the installed llama.cpp can use of it."""
