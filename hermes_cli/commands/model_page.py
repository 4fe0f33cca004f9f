"""The page of `hermes show` about a model of the catalogue: facts with their sources, files, prompt format."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

import msgspec

from hermes_cli.catalog.engine_weights import engine_weights
from hermes_cli.catalog.models import CatalogModel, Catalogue, RecommendedSampling
from hermes_cli.catalog.names import CatalogueReference
from hermes_cli.catalog.variants import matching_variants, only_named, preferred_variants
from hermes_cli.commands.list import measures, model_summary, variant_document, weights_document, weights_rows
from hermes_cli.commands.speeds import in_words
from hermes_cli.console import Console, Voice
from hermes_cli.prompting.messages import Message
from hermes_cli.units import billions, gigabytes, memory_size

EXAMPLE = (Message("system", "You are Hermes."), Message("user", "Hello!"))
BOS = {"llama-3": "<|begin_of_text|>"}
NUMBERS = ("SIZE", "BITS/WEIGHT", "LOSS")


def show(wanted: CatalogueReference, catalogue: Catalogue, console: Console, *, sources: bool) -> None:
    """Print the page: what fits here, facts, files, prompt format; with `sources` also where all of it is from."""
    from hermes_cli.prompting.choose import policy  # Jinja

    model = wanted.model
    named = matching_variants(model, quantization=wanted.quantization, repository=wanted.repository)
    offered = named if wanted.repository or wanted.quantization else preferred_variants(model)
    template, example = policy(model), _example(model)
    console.styled([(model.name, "bold")])
    if console.voice is not Voice.JSON:
        _show_fit(wanted, catalogue, console)
    console.text("\n")
    console.facts([(label, text + (_cited(model, key) if sources else "")) for label, text, key in _facts(model)])
    console.text("\nFiles\n")
    if offered:
        titles = ("NAME", "SIZE", "BITS/WEIGHT", "LOSS", "HERE", "FROM", "REPOSITORY")
        rows = [
            (
                variant.quantization,
                gigabytes(variant.bytes),
                *measures(variant, catalogue),
                variant.size_source,
                variant.repository.repo + (" (name inferred)" if variant.entry.inferred else ""),
            )
            for variant in offered
        ]
        shown = len(titles) if sources else titles.index("FROM")
        optional = titles[titles.index("FROM") :] if sources else ()
        console.table(titles[:shown], [row[:shown] for row in rows], right=NUMBERS, optional=optional)
    else:
        console.prose(f"none known{': ' + model.gguf_note if model.gguf_note else ''}")
    if sources and model.gguf:
        console.text("\nRepositories, in order of preference\n")
        for repository in model.gguf:
            quantizations = ", ".join(repository.quantizations) or "no files known"
            remarks = (repository.by, "imatrix" * repository.imatrix, repository.note)
            text = "; ".join([f"{repository.repo}: {quantizations}", *filter(None, remarks)])
            console.prose(f"  {text}", hanging="    ")
    console.text("\nFor vLLM and SGLang, whole repositories\n")
    columns = ("NAME", "SIZE", "BY", "HERE", "REPOSITORY")
    console.table(columns, weights_rows(model), right=("SIZE",), optional=("BY", "REPOSITORY"))
    stops = f", stops at {' or '.join(model.prompt.stop)}" if model.prompt.stop else ""
    cited = _cited(model, "prompt") if sources else ""
    console.prose(f"\nPrompt format: {_noted(f'{model.prompt.format}{stops}', model.prompt.note)}{cited}", hanging="  ")
    console.prose(f"Template: {template}", hanging="  ")
    if example:
        console.text(textwrap.indent(example, "  ").rstrip("\n") + "\n")
    if sources:
        console.text("\nSources\n")
        keys = dict.fromkeys(key for keys in model.sources.values() for key in keys)
        console.facts([(key, catalogue.sources[key]) for key in keys], indent="  ")
        console.note("size: stated exactly by a source, rounded in a listing, or computed by llama.cpp's rules")
    if offered:
        console.note("loss: KL divergence from F16 in nats, measured on Llama 3 8B; less for larger models")
    if not sources:
        console.note(f"where the facts and files are from: hermes show {model.short} --sources")
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


def _show_fit(wanted: CatalogueReference, catalogue: Catalogue, console: Console) -> None:
    """Say which of the files fits this machine best, how fast it is, and what to type."""
    from hermes_cli.commands.list import where_it_is
    from hermes_cli.hardware.probe import probe
    from hermes_cli.planning.recommend import RecommendOptions, best_recommendation, smallest_variant
    from hermes_cli.store.benchmarks import speed_ratios

    if not wanted.model.gguf:
        return
    machine = probe()
    options = RecommendOptions(measured=speed_ratios(machine), only=(only_named(wanted),))
    best = best_recommendation(catalogue, machine, options)
    if best is None:
        needed = smallest_variant(catalogue, options)
        would = f"; {needed[0].quantization}, the smallest, needs {memory_size(needed[1])}" if needed else ""
        console.prose(
            f"  fits here: none, with {memory_size(machine.memory_free)} of memory free{would}", hanging="    "
        )
        return
    console.styled([(f"  fits here: {best.variant.quantization}, {where_it_is(best.variant)}", "bold green")])
    console.prose(
        f"  with {best.settings.context:,} tokens of context it takes {memory_size(best.placement.total.total)}"
    )
    for line in in_words(best.speed, best.first_token):
        console.prose(f"  {line}", hanging="    ")
    console.command(f"  hermes chat {best.variant.name}")


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
    if price := model.cloud.openrouter_price:
        hosted[0] += f" ({price.context:,} tokens, {price.text})"
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
