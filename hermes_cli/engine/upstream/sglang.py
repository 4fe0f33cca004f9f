"""SGLang, which takes token ids at `/v1/completions` as vLLM does; its fields: sglang/srt/entrypoints/openai/protocol.py.

Its `/generate` would tell more, but repeats the whole answer in each event of a stream.
"""

from __future__ import annotations

from typing import Any

from hermes_cli.engine.upstream.dialect import TokenCompletion
from hermes_cli.engine.upstream.vllm import VLLM


class SGLang(VLLM):
    """Implements `Dialect` for SGLang."""

    name = "sglang"
    title = "SGLang"
    start_hint = "have it started with --grammar-backend llguidance, or run the model in this program."
    stopped_by = "matched_stop"

    def held(self, lark: str) -> dict[str, Any]:
        """Return the field for a grammar."""
        return {"ebnf": lark}

    def body(self, completion: TokenCompletion) -> dict[str, Any]:
        """Return the body of a request."""
        fields = super().body(completion)
        del fields["spaces_between_special_tokens"]
        fields.pop("return_tokens_as_token_ids", None)
        if not fields["logit_bias"]:
            del fields["logit_bias"]
        return fields
