"""The machine's hardware: memory, bandwidth, GPUs, and which of them the installed llama.cpp can use."""
