"""`hermes chat --endpoint URL`: a model behind an OpenAI-compatible API answers, in place of one in this program.

address ──► wire (HTTP, patience) ──► models (which one) ──► partner: conversation ──► request ──► reply ──► events
"""

from hermes_cli.chat.endpoint.source import Endpoint

__all__ = ["Endpoint"]
