"""The page of `hermes show` about a model of the catalogue: facts with their sources, files, prompt format."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

import msgspec

from hermes_cli.catalog.engine_weights import engine_weights
from hermes_cli.catalog.models import CatalogModel, Catalogue, RecommendedSampling
from hermes_cli.catalog.names import CatalogueReference
from hermes_cli.catalog.variants import matching_variants, preferred_variants
from hermes_cli.commands.list import measures, model_summary, variant_document, weights_document, weights_rows
from hermes_cli.console import Console
from hermes_cli.prompting.messages import Message
from hermes_cli.units import billions, gigabytes

EXAMPLE = (Message("system", "You are Hermes."), Message("user", "Hello!"))
BOS = {"llama-3": "<|begin_of_text|>"}
NUMBERS = ("SIZE", "BITS/WEIGHT", "LOSS")


def show(wanted: CatalogueReference, catalogue: Catalogue, console: Console) -> None:
    """Print the page: each quantization from its preferred repository, or what was asked for by name."""
    from hermes_cli.prompting.choose import policy  # Jinja

    model = wanted.model
    named = matching_variants(model, quantization=wanted.quantization, repository=wanted.repository)
    offered = named if wanted.repository or wanted.quantization else preferred_variants(model)
    console.text(f"{model.name}\n\n")
    console.facts([(label, text + _cited(model, key)) for label, text, key in _facts(model)], indent="  ")
    console.text("\nFiles\n")
    if offered:
        titles = ("  NAME", "SIZE", "FROM", "BITS/WEIGHT", "LOSS", "HERE", "REPOSITORY")
        rows = [
            (
                f"  {variant.quantization}",
                gigabytes(variant.bytes),
                variant.size_source,
                *measures(variant, catalogue),
                variant.repository.repo + (" (name inferred)" if variant.entry.inferred else ""),
            )
            for variant in offered
        ]
        console.table(titles, rows, right=NUMBERS)
    else:
        console.text(f"  none known{': ' + model.gguf_note if model.gguf_note else ''}\n")
    if model.gguf:
        console.text("\nRepositories, in order of preference\n")
    for repository in model.gguf:
        quantizations = ", ".join(repository.quantizations) or "no files known"
        remarks = (repository.by, "imatrix" * repository.imatrix, repository.note)
        console.text(f"  {'; '.join([f'{repository.repo}: {quantizations}', *filter(None, remarks)])}\n")
    console.text("\nFor vLLM and SGLang, whole repositories\n")
    weights = [(f"  {name}", *cells) for name, *cells in weights_rows(model)]
    console.table(("  NAME", "SIZE", "BY", "HERE", "REPOSITORY"), weights, right=("SIZE",))
    stops = f", stops at {' or '.join(model.prompt.stop)}" if model.prompt.stop else ""
    prompt_format = _noted(f"{model.prompt.format}{stops}", model.prompt.note) + _cited(model, "prompt")
    template, example = policy(model), _example(model)
    console.text(f"\nPrompt format: {prompt_format}\nTemplate: {template}\n")
    if example:
        console.text(textwrap.indent(example, "  ").rstrip("\n") + "\n")
    console.text("\nSources\n")
    cited = dict.fromkeys(key for keys in model.sources.values() for key in keys)
    console.facts([(key, catalogue.sources[key]) for key in cited], indent="  ")
    console.note(
        "size: stated exactly by a source, rounded in a listing, or computed by llama.cpp's rules · "
        "loss: KL divergence from F16 in nats, on Llama 3 8B"
    )
    console.document(
        {
            **model_summary(model),
            "facts": msgspec.to_builtins(model),
            "variants": [variant_document(variant, catalogue) for variant in offered],
            "weights": [weights_document(weights) for weights in engine_weights(model)],
            "template": template,
            "prompt_example": example,
        }
    )


def _cited(model: CatalogModel, key: str) -> str:
    keys = model.sources.get(key)
    return f"  [{', '.join(keys)}]" if keys else ""


def _noted(text: str, note: str) -> str:
    return f"{text} ({note})" if note else text


def _facts(model: CatalogModel) -> Iterator[tuple[str, str, str]]:
    """Yield label, text and the key of the catalogue, by which its sources are listed, of every fact."""
    yield "names", ", ".join(dict.fromkeys((model.short, model.id, *model.ollama))), "ollama"
    yield "generation", f"{model.generation}, released {_noted(model.released, model.released_note)}", "released"
    yield "base model", model.base_model, "base_model"
    yield "licence", _noted(model.license.id, model.license.note), "license"
    yield "parameters", f"{billions(model.parameters)} ({model.parameters:,})", "parameters"
    yield "architecture", _architecture(model), "architecture"
    yield "context", _context(model), "context"
    yield "tool calls", "yes" if model.tools else "not trained for them", "tools"
    yield "JSON mode", "yes" if model.json_mode else "not trained for it", "json_mode"
    yield "reasoning", _reasoning(model), "reasoning"
    yield "sampling", _sampling(model), "sampling"
    if model.benchmarks:
        scores = ", ".join(f"{name} {score:g}" for name, score in model.benchmarks.items())
        yield "benchmarks", _noted(scores, model.benchmarks_note), "benchmarks"
    converted = [f"{repo} (MLX)" for repo in model.weights.mlx]
    yield "weights", ", ".join((model.weights.original, *converted, *model.weights.other)), "weights"
    hosted = [f"{name} {value}" for name in ("openrouter", "nous_portal") if (value := getattr(model.cloud, name))]
    if hosted or model.cloud.retired:
        gone = [f"retired: {', '.join(model.cloud.retired)}"] if model.cloud.retired else []
        yield "hosted as", "; ".join(hosted + gone), "cloud"


def _architecture(model: CatalogModel) -> str:
    arch = model.architecture
    experts = f", {arch.experts_used} of {arch.experts} experts" if arch.experts else ""
    unconfirmed = f"; not confirmed: {', '.join(arch.unconfirmed)}" if arch.unconfirmed else ""
    text = (
        f"{arch.kind}, {arch.layers} layers of {arch.embedding_length:,}, {arch.heads} heads and "
        f"{arch.kv_heads} KV heads of {arch.head_length}, feed-forward {arch.feed_forward_length:,}{experts}, "
        f"vocabulary {arch.vocabulary:,}{unconfirmed}"
    )
    return _noted(text, arch.note)


def _context(model: CatalogModel) -> str:
    context = model.context
    text = f"{context.usable:,} tokens"
    if context.usable != context.trained:
        text += f" (the file says {context.trained:,})"
    if context.yarn:
        text += f", {context.yarn.context:,} by YaRN"
    return f"{text}; {context.note}" if context.note else text


def _reasoning(model: CatalogModel) -> str:
    if model.reasoning is None:
        return "no"
    switches = {
        "system-prompt": "by a system prompt",
        "thinking": "by a system prompt and the template's `thinking` flag",
    }
    note = f"; {model.reasoning.note}" if model.reasoning.note else ""
    return f"<think>, {model.reasoning.default} unless switched on {switches[model.reasoning.switch]}{note}"


def _sampling(model: CatalogModel) -> str:
    if not isinstance(model.sampling, RecommendedSampling):
        return "unknown"
    values = {
        name: value
        for name in ("temperature", "top_p", "top_k", "repeat_penalty")
        if (value := getattr(model.sampling, name)) is not None
    }
    return ", ".join(f"{name} {value:g}" for name, value in values.items())


def _example(model: CatalogModel) -> str | None:
    """Return a short conversation in the model's prompt format."""
    from hermes_cli.prompting.compose import PromptInput
    from hermes_cli.prompting.families import family_of
    from hermes_cli.prompting.render import OurFormat

    family = family_of(model)
    if family is None:
        return None
    bos = BOS.get(model.architecture.tokenizer, "") if family.markup == "llama-3" else ""
    return OurFormat(family, bos).render(PromptInput(EXAMPLE)).plain
