"""The page of `hermes show` about a model of the catalogue: facts with their sources, files, prompt format."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

import msgspec

from hermes_cli.catalog.models import RecommendedSampling
from hermes_cli.catalog.variants import Variant, matching_variants, preferred_variants
from hermes_cli.commands.list import HERE, model_summary, variant_document
from hermes_cli.prompting.messages import Message
from hermes_cli.store.library import installed
from hermes_cli.units import billions, gigabytes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hermes_cli.catalog.models import CatalogModel, Catalogue
    from hermes_cli.catalog.names import CatalogueReference
    from hermes_cli.console import Console

EXAMPLE = (Message("system", "You are Hermes."), Message("user", "Hello!"))
BOS = {"llama-3": "<|begin_of_text|>"}
NUMBERS = ("SIZE", "BITS/WEIGHT", "LOSS")


def show(wanted: CatalogueReference, catalogue: Catalogue, console: Console) -> None:
    """Print the page: each quantization from its preferred repository, or what was asked for by name."""
    model = wanted.model
    named = matching_variants(model, quantization=wanted.quantization, repository=wanted.repository)
    offered = named if wanted.repository or wanted.quantization else preferred_variants(model)
    console.text(f"{model.name}\n\n")
    facts = list(_facts(model))
    width = max(len(label) for label, _, _ in facts)
    for label, text, keys in facts:
        cited = f"  [{', '.join(keys)}]" if keys else ""
        console.text(f"  {label:{width}}  {text}{cited}\n")
    console.text("\nFiles\n")
    if offered:
        titles = ("  NAME", "SIZE", "FROM", "BITS/WEIGHT", "LOSS", "HERE", "REPOSITORY")
        console.table(titles, [_row(variant, catalogue) for variant in offered], right=NUMBERS)
    else:
        console.text(f"  none known{': ' + model.gguf_note if model.gguf_note else ''}\n")
    if model.gguf:
        _show_repositories(model, console)
    _show_prompt(model, console)
    _show_legend(model, catalogue, console)
    console.document(
        {
            **model_summary(model),
            "facts": msgspec.to_builtins(model),
            "variants": [variant_document(variant, catalogue) for variant in offered],
            "template": _template(model),
            "prompt_example": _example(model),
        }
    )


def _facts(model: CatalogModel) -> Iterator[tuple[str, str, tuple[str, ...]]]:
    """Yield label, text and source keys of every fact."""

    def fact(label: str, text: str, key: str) -> tuple[str, str, tuple[str, ...]]:
        return label, text, model.sources.get(key, ())

    def noted(text: str, note: str) -> str:
        return f"{text} ({note})" if note else text

    yield fact("names", ", ".join(dict.fromkeys((model.short, model.id, *model.ollama))), "ollama")
    yield fact("generation", f"{model.generation}, released {noted(model.released, model.released_note)}", "released")
    yield fact("base model", model.base_model, "base_model")
    yield fact("licence", noted(model.license.id, model.license.note), "license")
    yield fact("parameters", f"{billions(model.parameters)} ({model.parameters:,})", "parameters")
    yield fact("architecture", _architecture(model), "architecture")
    yield fact("context", _context(model), "context")
    yield fact("tool calls", "yes" if model.tools else "not trained for them", "tools")
    yield fact("JSON mode", "yes" if model.json_mode else "not trained for it", "json_mode")
    yield fact("reasoning", _reasoning(model), "reasoning")
    yield fact("sampling", _sampling(model), "sampling")
    if model.benchmarks:
        scores = ", ".join(f"{name} {score:g}" for name, score in model.benchmarks.items())
        yield fact("benchmarks", noted(scores, model.benchmarks_note), "benchmarks")
    formats = {name: getattr(model.weights, name) for name in ("fp8", "awq", "nvfp4", "mlx", "other")}
    named = [f"{', '.join(repos)} ({name.upper()})" for name, repos in formats.items() if repos]
    yield fact("weights", ", ".join((model.weights.original, *named)).replace(" (OTHER)", ""), "weights")
    hosted = [f"{name} {value}" for name in ("openrouter", "nous_portal") if (value := getattr(model.cloud, name))]
    if hosted or model.cloud.retired:
        gone = [f"retired: {', '.join(model.cloud.retired)}"] if model.cloud.retired else []
        yield fact("hosted as", "; ".join(hosted + gone), "cloud")


def _architecture(model: CatalogModel) -> str:
    a = model.architecture
    experts = f", {a.experts_used} of {a.experts} experts" if a.experts else ""
    unconfirmed = f"; not confirmed: {', '.join(a.unconfirmed)}" if a.unconfirmed else ""
    text = (
        f"{a.kind}, {a.layers} layers of {a.embedding_length:,}, {a.heads} heads and {a.kv_heads} KV heads of "
        f"{a.head_length}, feed-forward {a.feed_forward_length:,}{experts}, vocabulary {a.vocabulary:,}{unconfirmed}"
    )
    return f"{text} ({a.note})" if a.note else text


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


def _row(variant: Variant, catalogue: Catalogue) -> tuple[str, ...]:
    bits = variant.bits_per_weight
    loss = variant.loss(catalogue)
    inferred = " (name inferred)" if variant.entry.inferred else ""
    return (
        f"  {variant.quantization}",
        gigabytes(variant.bytes),
        variant.size_source,
        f"{bits:.2f}" if bits else "",
        "" if loss is None else f"{loss:.4f}",
        HERE if installed(variant) else "",
        variant.repository.repo + inferred,
    )


def _show_repositories(model: CatalogModel, console: Console) -> None:
    """Print every repository with its quantizations, in order of preference."""
    console.text("\nRepositories, in order of preference\n")
    for repository in model.gguf:
        quantizations = ", ".join(repository.quantizations) or "no files known"
        extra = "".join(
            f"; {word}" for word in (repository.by, "imatrix" * repository.imatrix, repository.note) if word
        )
        console.text(f"  {repository.repo}: {quantizations}{extra}\n")


def _show_prompt(model: CatalogModel, console: Console) -> None:
    stops = f", stops at {' or '.join(model.prompt.stop)}" if model.prompt.stop else ""
    note = f" ({model.prompt.note})" if model.prompt.note else ""
    cited = f"  [{', '.join(keys)}]" if (keys := model.sources.get("prompt")) else ""
    console.text(f"\nPrompt format: {model.prompt.format}{stops}{note}{cited}\n")
    console.text(f"Template: {_template(model)}\n")
    if example := _example(model):
        console.text(textwrap.indent(example, "  ").rstrip("\n") + "\n")


def _template(model: CatalogModel) -> str:
    """Return the chat template that its files get, and why."""
    from hermes_cli.prompting.choose import policy

    return policy(model)


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


def _show_legend(model: CatalogModel, catalogue: Catalogue, console: Console) -> None:
    used = dict.fromkeys(key for keys in model.sources.values() for key in keys)
    console.text("\nSources\n")
    width = max(len(key) for key in used)
    for key in used:
        console.text(f"  {key:{width}}  {catalogue.sources[key]}\n")
    console.note(
        "size: stated exactly by a source, rounded in a listing, or computed by llama.cpp's rules · "
        "loss: KL divergence from F16 in nats, on Llama 3 8B"
    )
