"""`hermes chat --endpoint URL`: a model behind an OpenAI-compatible API answers, in place of one in this program.

address ──► http_client (retries, errors) ──► endpoint_backend (which model; answers) ──► chat_completions (JSON)
"""
