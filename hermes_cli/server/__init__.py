"""The HTTP API: what clients of OpenAI, Anthropic and llama.cpp expect, on one model or several."""
