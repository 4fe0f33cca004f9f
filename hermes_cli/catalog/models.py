"""The schema of catalog.yaml, and the tensors that follow from an architecture.

Every class is a frozen struct whose fields are the keys of the file; a key that is not listed here is a fault.
`unknown` in the file stays the word `unknown` here: no source says it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal, NamedTuple

from msgspec import Meta, Struct

Unknown = Literal["unknown"]
Count = Annotated[int, Meta(ge=1)]
Sha256 = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
Revision = Annotated[str, Meta(pattern="^[0-9a-f]{40}$")]
RepoId = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*$", max_length=200)]
Date = Annotated[str, Meta(pattern=r"^\d{4}-\d{2}(-\d{2})?$|^unknown$")]
FileName = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][\w.+ -]*$", max_length=200)]
ModelId = Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9.-]*$")]
ShortName = Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9.-]*:[a-z0-9][a-z0-9.-]*$")]

SizeSource = Literal["stated", "listed", "computed", "unknown"]


class CatalogEntry(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Base of all: immutable, and strict about its keys."""


class RopeScaling(CatalogEntry, frozen=True):
    """Llama 3.1's frequency scaling, as in `config.json`; `original_context` in tokens."""

    factor: float
    original_context: Count
    low_frequency_factor: float = 1.0
    high_frequency_factor: float = 4.0


class Architecture(CatalogEntry, frozen=True, cache_hash=True):
    """The figures that decide size, memory and speed, named as in GGUF metadata where it has a name.

    `unconfirmed` lists fields that no source states for this fine-tune: they are the base model's.
    """

    kind: Literal["llama", "qwen3", "seed_oss"]
    layers: Count
    embedding_length: Count
    heads: Count
    kv_heads: Count
    head_length: Count
    feed_forward_length: Count
    vocabulary: Count
    tokenizer: Literal["llama", "yi", "llama-3", "tekken", "qwen", "seed"]
    rope_base: float
    tied_embeddings: bool = False
    experts: int = 0
    experts_used: int = 0
    rope_scaling: RopeScaling | None = None
    norm_epsilon: float = 1e-5
    sliding_window: int | None = None
    unconfirmed: tuple[str, ...] = ()
    note: str = ""


class Yarn(CatalogEntry, frozen=True):
    """An extension of the context that the base model documents; `context` and `original` in tokens."""

    context: Count
    factor: float
    original: Count


class ContextLength(CatalogEntry, frozen=True):
    """Tokens. `trained` is what the file states, `usable` what it was really trained to handle, if that is less."""

    trained: Count
    usable: Count
    yarn: Yarn | None = None
    note: str = ""


class License(CatalogEntry, frozen=True):
    """The licence that the model card states."""

    id: str
    note: str = ""


class PromptSpec(CatalogEntry, frozen=True):
    """The prompt format of the model; `stop` are the strings that end a turn."""

    format: Literal["alpaca", "chatml", "llama-3", "unknown"]
    stop: tuple[str, ...] = ()
    note: str = ""


class ReasoningSupport(CatalogEntry, frozen=True):
    """The switch for thinking: `system-prompt`, or by a template flag that needs the system prompt too."""

    switch: Literal["system-prompt", "thinking"]
    default: Literal["on", "off"] = "off"
    note: str = ""


class RecommendedSampling(CatalogEntry, frozen=True):
    """Sampling parameters that the authors recommend. What only their example code uses is none of them."""

    temperature: float
    top_p: float | None = None
    top_k: int | None = None
    repeat_penalty: float | None = None


class WeightRepositories(CatalogEntry, frozen=True):
    """Repositories of weights that are not GGUF: as published, and in the formats of vLLM, SGLang and MLX."""

    original: RepoId
    fp8: tuple[RepoId, ...] = ()
    awq: tuple[RepoId, ...] = ()
    nvfp4: tuple[RepoId, ...] = ()
    mlx: tuple[RepoId, ...] = ()
    other: tuple[RepoId, ...] = ()


class GgufFile(CatalogEntry, frozen=True):
    """One quantization in a repository."""

    file: FileName | None = None  # name, where the repository's pattern does not give it
    spelled: str | None = None  # how the name spells the quantization, where it differs
    bytes: Count | None = None  # exact size, stated by a source
    listed_gb: Annotated[float, Meta(gt=0)] | None = None  # size in GB (10^9 bytes) as the Hub's listing rounds it
    sha256: Sha256 | None = None  # of the whole file
    md5: Annotated[str, Meta(pattern="^[0-9a-f]{32}$")] | None = None
    # number of files made by gguf-split; llama.cpp opens the first
    shards: Annotated[int, Meta(ge=2, le=999)] | None = None
    parts: Annotated[int, Meta(ge=2, le=26)] | None = None  # number of raw pieces to be joined before use
    folder: FileName | None = None  # sub-folder of the repository that holds the files
    inferred: bool = False  # the name follows the publisher's habit, but no listing showed it
    # made by an older llama.cpp whose mix of tensor types was another; `listed_gb` is nearer than the computed size
    old_mix: bool = False
    note: str = ""


class Repository(CatalogEntry, frozen=True):
    """GGUF files of one publisher, by quantization. `files` is the pattern of their names."""

    repo: RepoId
    by: Literal["official", "community"]
    imatrix: bool = False  # quantized with an importance matrix, which changes the mix of some quantizations
    revision: Revision | None = None  # the commit that sizes and hashes belong to
    complete: bool = False  # the listing was seen whole; otherwise there may be more files
    files: Annotated[str, Meta(pattern=r"^[A-Za-z0-9][\w.+ {}-]*\{quantization\}[\w.+-]*\.gguf$")] | None = None
    quantizations: dict[str, GgufFile] = {}
    note: str = ""


class ComputedSizes(CatalogEntry, frozen=True):
    """Bytes of the whole file by quantization, from llama.cpp's own rules (tools/sizes.py).

    `imatrix` holds only those that an importance matrix changes.
    """

    static: dict[str, Count]
    imatrix: dict[str, Count]


class HostedPrice(CatalogEntry, frozen=True):
    """The price of a model at a service on a day, in USD per million tokens, and its context in tokens there."""

    input: Annotated[float, Meta(ge=0)]
    output: Annotated[float, Meta(ge=0)]
    context: Count
    date: Annotated[str, Meta(pattern=r"^\d{4}-\d\d-\d\d$")]

    @property
    def text(self) -> str:
        """Return it in words: "$0.13 in, $0.40 out per million tokens on 2026-07-02"."""
        return f"${self.input:.2f} in, ${self.output:.2f} out per million tokens on {self.date}"


class CloudNames(CatalogEntry, frozen=True):
    """Names of the model at hosted services; `retired` ones are no longer offered."""

    openrouter: str | None = None
    openrouter_price: HostedPrice | None = None
    nous_portal: str | None = None
    retired: tuple[str, ...] = ()


class CatalogModel(CatalogEntry, frozen=True):
    """One set of weights."""

    id: ModelId
    short: ShortName
    name: str
    generation: str
    released: Date
    base_model: str
    license: License
    parameters: Count
    architecture: Architecture
    context: ContextLength
    prompt: PromptSpec
    tools: bool
    json_mode: bool
    sampling: RecommendedSampling | Unknown
    weights: WeightRepositories
    sources: dict[str, tuple[str, ...]]
    sizes: ComputedSizes
    reasoning: ReasoningSupport | None = None
    released_note: str = ""
    benchmarks: dict[str, float] = {}
    benchmarks_note: str = ""
    gguf: tuple[Repository, ...] = ()
    gguf_note: str = ""
    ollama: tuple[str, ...] = ()
    cloud: CloudNames = CloudNames()
    note: str = ""


class Quantization(CatalogEntry, frozen=True):
    """The quality that a quantization loses, measured on Llama 3 8B."""

    bits: float  # bits per weight of its main tensor type
    kl: float | None = None  # mean Kullback-Leibler divergence from F16, in nats, without importance matrix
    kl_imatrix: float | None = None  # the same with an importance matrix
    same_as: str | None = None  # the quantization whose figures stand for this one
    note: str = ""


class DemoModel(CatalogEntry, frozen=True):
    """The toy model that ships with hermes."""

    name: str
    made_by: str
    note: str
    license: str
    parameters: Count
    trained_context: Count
    quantization: str
    file: FileName
    bytes: Count
    sha256: Sha256


class Catalogue(CatalogEntry, frozen=True):
    """Everything in catalog.yaml."""

    sources: dict[str, str]
    quantizations: dict[str, Quantization]
    demo: DemoModel
    models: tuple[CatalogModel, ...]


class TensorShape(NamedTuple):
    """One tensor: `shape` in elements, row length first as in ggml. One-dimensional ones are always F32."""

    name: str
    shape: tuple[int, ...]


def model_tensors(architecture: Architecture) -> tuple[TensorShape, ...]:
    """Return every tensor of the file, in the order of converted files: embedding, layers, output."""
    before, after = outer_tensors(architecture)
    layers = (tensor for layer in range(architecture.layers) for tensor in layer_tensors(architecture, layer))
    return (*before, *layers, *after)


def outer_tensors(a: Architecture) -> tuple[list[TensorShape], list[TensorShape]]:
    """Return the tensors before the layers, of which the first is the embedding, and those after them."""
    before = [TensorShape("token_embd.weight", (a.embedding_length, a.vocabulary))]
    if a.rope_scaling:
        before.append(TensorShape("rope_freqs.weight", (a.head_length // 2,)))
    after = [TensorShape("output_norm.weight", (a.embedding_length,))]
    if not a.tied_embeddings:
        after.append(TensorShape("output.weight", (a.embedding_length, a.vocabulary)))
    return before, after


def layer_tensors(a: Architecture, layer: int) -> Iterator[TensorShape]:
    """Yield the tensors of one layer; their shapes are the same in all layers."""
    name = f"blk.{layer}"
    width, inner = a.embedding_length, a.feed_forward_length
    queries, keys = a.heads * a.head_length, a.kv_heads * a.head_length
    yield TensorShape(f"{name}.attn_norm.weight", (width,))
    for part, length in (("q", queries), ("k", keys), ("v", keys)):
        yield TensorShape(f"{name}.attn_{part}.weight", (width, length))
        if a.kind == "seed_oss":
            yield TensorShape(f"{name}.attn_{part}.bias", (length,))
    if a.kind == "qwen3":
        yield TensorShape(f"{name}.attn_q_norm.weight", (a.head_length,))
        yield TensorShape(f"{name}.attn_k_norm.weight", (a.head_length,))
    yield TensorShape(f"{name}.attn_output.weight", (queries, width))
    after_attention = "post_attention_norm" if a.kind == "seed_oss" else "ffn_norm"
    yield TensorShape(f"{name}.{after_attention}.weight", (width,))
    suffix, experts = ("_exps", (a.experts,)) if a.experts else ("", ())
    if a.experts:
        yield TensorShape(f"{name}.ffn_gate_inp.weight", (width, a.experts))
    yield TensorShape(f"{name}.ffn_gate{suffix}.weight", (width, inner, *experts))
    yield TensorShape(f"{name}.ffn_up{suffix}.weight", (width, inner, *experts))
    yield TensorShape(f"{name}.ffn_down{suffix}.weight", (inner, width, *experts))
