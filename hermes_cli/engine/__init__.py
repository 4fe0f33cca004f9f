"""Engines continue prompts: protocol.py is the contract, embedded/ is llama.cpp in a child process."""
