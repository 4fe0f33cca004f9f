"""Tokens in, tokens out: llama.cpp and nothing above it."""
