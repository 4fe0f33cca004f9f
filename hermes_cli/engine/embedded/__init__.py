"""The engine of hermes itself: llama.cpp in a child process."""
