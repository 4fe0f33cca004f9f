"""The page of `hermes show` about a GGUF file, from its header."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING, Any

from hermes_cli.catalog.load import load_catalogue
from hermes_cli.catalog.variants import quantization_in_file_name
from hermes_cli.errors import UsageError
from hermes_cli.gguf.types import FILE_TYPES
from hermes_cli.units import billions, gigabytes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hermes_cli.catalog.overlay import HubRepository
    from hermes_cli.console import Console
    from hermes_cli.gguf.header import GGUFHeader

TEMPLATE_KEY = "tokenizer.chat_template"


def show(name: str, header: GGUFHeader, console: Console) -> None:
    """Print the page."""
    console.text(f"{name}\n\n")
    facts = list(_facts(header, name))
    width = max(len(label) for label, _ in facts)
    for label, text in facts:
        console.text(f"  {label:{width}}  {text}\n")


def show_files(listing: HubRepository, names: frozenset[str], console: Console) -> None:
    """Print the files of a repository."""
    console.text(f"\nFiles at revision {listing.revision}\n")
    rows = [
        (f"  {file.path}", gigabytes(file.bytes), quantization_in_file_name(file.path.rpartition("/")[2], names) or "")
        for file in listing.files
    ]
    console.table(("  FILE", "SIZE", "QUANTIZATION"), rows, right=("SIZE",))


def document(header: GGUFHeader) -> dict[str, Any]:
    """Return the page for `--json`; keys are documented in docs/catalogue.md."""
    return {
        "architecture": header.text("general.architecture"),
        "title": header.text("general.name"),
        "quantization": _quantization(header),
        "file_bytes": header.file_size,
        "parameters": _parameters(header),
        "bits_per_weight": _bits(header),
        "context_length": header.number("context_length"),
        "layers": header.number("block_count"),
        "license": header.text("general.license"),
        "chat_templates": list(_templates(header)),
        "shard": [header.split.number, header.split.count] if header.split else None,
        "gguf_version": header.version,
        "tensor_types": _tensor_types(header),
        "metadata": {key: value for key, value in header.metadata.items() if isinstance(value, (int, float, str))},
    }


def _facts(header: GGUFHeader, name: str) -> Iterator[tuple[str, str]]:
    bits = f", {_bits(header):.2f} bits per weight" if header.tensors else ""
    yield "title", header.text("general.name") or "not stated"
    yield "size", f"{gigabytes(header.file_size)} ({header.file_size:,} bytes){bits}"
    if header.split:
        yield "shard", f"{header.split.number} of {header.split.count}; the others hold the rest"
    yield "format", f"GGUF version {header.version}, {len(header.tensors)} tensors"
    yield "quantization", f"{_quantization(header) or 'not stated'} ({_mix(header)})"
    yield "parameters", f"{billions(_parameters(header))} ({_parameters(header):,})"
    yield "architecture", _architecture(header)
    context = header.number("context_length")
    yield "context", f"{context:,} tokens" if context else "not stated"
    yield "tokenizer", header.text("tokenizer.ggml.model") or "not stated"
    yield "chat template", _template(header, name)
    yield "licence", header.text("general.license") or "not stated"


def _architecture(header: GGUFHeader) -> str:
    figures = {
        "layers": "block_count",
        "embedding": "embedding_length",
        "heads": "attention.head_count",
        "KV heads": "attention.head_count_kv",
        "feed-forward": "feed_forward_length",
        "experts": "expert_count",
    }
    kind = header.text("general.architecture") or "not stated"
    stated = [f"{label} {value:,}" for label, key in figures.items() if (value := header.number(f"{kind}.{key}"))]
    return ", ".join([kind, *stated])


def _quantization(header: GGUFHeader) -> str | None:
    number = header.number("general.file_type")
    return None if number is None else FILE_TYPES.get(number)


def _parameters(header: GGUFHeader) -> int:
    return sum(math.prod(tensor.shape) for tensor in header.tensors if not tensor.name.startswith("rope_"))


def _bits(header: GGUFHeader) -> float:
    return sum(tensor.size for tensor in header.tensors) * 8 / max(_parameters(header), 1)


def _tensor_types(header: GGUFHeader) -> dict[str, int]:
    return dict(Counter(tensor.type_name for tensor in header.tensors).most_common())


def _mix(header: GGUFHeader) -> str:
    return ", ".join(f"{count} {name}" for name, count in _tensor_types(header).items())


def _templates(header: GGUFHeader) -> dict[str, str]:
    """Return the chat templates of a file by name; the one without a name is the default."""
    return {
        key.removeprefix(TEMPLATE_KEY).lstrip(".") or "default": value
        for key, value in header.metadata.items()
        if key.startswith(TEMPLATE_KEY) and isinstance(value, str)
    }


def _template(header: GGUFHeader, name: str) -> str:
    """Return the template that is used for this file, and why."""
    from hermes_cli.prompting.choose import FileTemplates, choose, identify  # noqa: PLC0415 - Jinja

    tokens = header.metadata.get("tokenizer.ggml.tokens")
    templates = _templates(header)
    vocabulary = frozenset(tokens) if isinstance(tokens, tuple) else None  # only if the header was read with it
    if not templates and vocabulary is None:
        return "none: hermes takes ChatML or Alpaca, by its tokens"
    carried = FileTemplates(templates, vocabulary.__contains__) if vocabulary else FileTemplates(templates)
    called = (header.text("general.name") or "", name.rpartition("/")[2].removesuffix(".gguf"))
    model = identify(called, header.number, load_catalogue())
    try:
        return choose(carried, model).why
    except UsageError as error:
        return error.message
