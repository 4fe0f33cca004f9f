"""`hermes chat --endpoint URL`: a model behind an OpenAI-compatible API answers, in place of one in this program.

address ──► http_client (retries) ──► probe (which model) ──► endpoint_backend: chat_completions (request, answer)
"""
