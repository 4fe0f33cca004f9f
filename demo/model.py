"""A llama in PyTorch, small enough to read: RMSNorm, interleaved RoPE, grouped-query attention, SwiGLU, tied embeddings."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True)
class Shape:
    """The model's hyper-parameters, named as in GGUF metadata where it has a name for them."""

    vocabulary: int = 1024
    layers: int = 6
    width: int = 256
    heads: int = 4
    kv_heads: int = 2
    feed_forward: int = 512
    context_length: int = 1024
    rope_base: float = 10_000.0
    norm_epsilon: float = 1e-5

    @property
    def head_size(self) -> int:
        """Elements of one attention head."""
        return self.width // self.heads


def rope_angles(shape: Shape) -> tuple[Tensor, Tensor]:
    """Cosines and sines of every position and frequency: two tensors (context, head_size / 2)."""
    exponents = torch.arange(0, shape.head_size, 2) / shape.head_size
    angles = torch.arange(shape.context_length)[:, None] / shape.rope_base ** exponents[None, :]
    return angles.cos(), angles.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """RoPE on neighbouring pairs (llama.cpp's NORM kind). x: (batch, heads, time, head_size)."""
    even, odd = x[..., 0::2], x[..., 1::2]
    return torch.stack((even * cos - odd * sin, even * sin + odd * cos), dim=-1).flatten(-2)


class Layer(nn.Module):
    """One transformer block with pre-norms."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        kv_width = shape.kv_heads * shape.head_size
        self.attn_norm = nn.RMSNorm(shape.width, eps=shape.norm_epsilon)
        self.attn_q = nn.Linear(shape.width, shape.width, bias=False)
        self.attn_k = nn.Linear(shape.width, kv_width, bias=False)
        self.attn_v = nn.Linear(shape.width, kv_width, bias=False)
        self.attn_output = nn.Linear(shape.width, shape.width, bias=False)
        self.ffn_norm = nn.RMSNorm(shape.width, eps=shape.norm_epsilon)
        self.ffn_gate = nn.Linear(shape.width, shape.feed_forward, bias=False)
        self.ffn_up = nn.Linear(shape.width, shape.feed_forward, bias=False)
        self.ffn_down = nn.Linear(shape.feed_forward, shape.width, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """x: (batch, time, width)."""
        batch, time, width = x.shape
        shape = self.shape
        h = self.attn_norm(x)
        q = self.attn_q(h).view(batch, time, shape.heads, shape.head_size).transpose(1, 2)
        k = self.attn_k(h).view(batch, time, shape.kv_heads, shape.head_size).transpose(1, 2)
        v = self.attn_v(h).view(batch, time, shape.kv_heads, shape.head_size).transpose(1, 2)
        q, k = rotate(q, cos, sin).to(v.dtype), rotate(k, cos, sin).to(v.dtype)
        repeat = shape.heads // shape.kv_heads
        k, v = k.repeat_interleave(repeat, dim=1), v.repeat_interleave(repeat, dim=1)
        mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.attn_output(mixed.transpose(1, 2).reshape(batch, time, width))
        h = self.ffn_norm(x)
        return x + self.ffn_down(functional.silu(self.ffn_gate(h)) * self.ffn_up(h))


class Llama(nn.Module):
    """The whole model. `forward` gives hidden states; only what is learned is projected to logits."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.token_embd = nn.Embedding(shape.vocabulary, shape.width)
        self.layers = nn.ModuleList(Layer(shape) for _ in range(shape.layers))
        self.output_norm = nn.RMSNorm(shape.width, eps=shape.norm_epsilon)
        cos, sin = rope_angles(shape)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)
        for name, parameter in self.named_parameters():
            if parameter.dim() == 2:
                deep = name.endswith(("attn_output.weight", "ffn_down.weight"))
                nn.init.normal_(parameter, std=0.02 / (2 * shape.layers) ** 0.5 if deep else 0.02)

    def forward(self, tokens: Tensor) -> Tensor:
        """tokens: (batch, time) -> hidden states (batch, time, width)."""
        time = tokens.shape[1]
        x = self.token_embd(tokens)
        for layer in self.layers:
            x = layer(x, self.cos[:time], self.sin[:time])
        return self.output_norm(x)

    def loss(self, hidden: Tensor, tokens: Tensor, wanted: Tensor, *, focus: bool = False) -> Tensor:
        """Mean cross-entropy in nats over the wanted tokens, each predicted from the position before it.

        Shapes: hidden (batch, time, width) of tokens (batch, time); wanted like tokens. With `focus`, tokens that are
        already sure count for little (focal loss, arXiv 1708.02002, with gamma 1): most of a dialogue is easy copying.
        """
        chosen = wanted[:, 1:]
        logits = functional.linear(hidden[:, :-1][chosen], self.token_embd.weight)
        losses = functional.cross_entropy(logits, tokens[:, 1:][chosen], reduction="none")
        return ((1.05 - (-losses).exp()).detach() * losses).mean() if focus else losses.mean()


def grown(state: dict[str, Tensor], layers: int) -> dict[str, Tensor]:
    """The weights of a model with fewer layers, spread over `layers` of them so that it computes the same.

    Layers are doubled from the middle outwards; the second of a pair adds nothing until it has learned something.
    """
    old = 1 + max(int(name.split(".")[1]) for name in state if name.startswith("layers."))
    middle_first = sorted(range(old), key=lambda index: abs(index - (old - 1) / 2))
    doubled = set(middle_first[: layers - old])
    sources = [(index, copy) for index in range(old) for copy in range(2 if index in doubled else 1)]
    result = {name: tensor for name, tensor in state.items() if not name.startswith("layers.")}
    for number, (index, copy) in enumerate(sources):
        for name, tensor in state.items():
            if name.startswith(f"layers.{index}."):
                silent = copy and name.endswith(("attn_output.weight", "ffn_down.weight"))
                renamed = name.replace(f"layers.{index}.", f"layers.{number}.", 1)
                result[renamed] = torch.zeros_like(tensor) if silent else tensor.clone()
    return result
