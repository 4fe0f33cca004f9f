"""Makes a model ready to answer: weights, context, adapters, a first decode, threads, and a model that guesses."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from hermes_cli.engine.embedded.batch import Batch
from hermes_cli.engine.embedded.bindings import LOG
from hermes_cli.engine.embedded.draft_model import DraftModel
from hermes_cli.engine.embedded.grammar import LazyGrammars, special_tokens
from hermes_cli.engine.embedded.llama import LlamaContext, LlamaModel, LoraAdapter
from hermes_cli.engine.protocol import ModelInfo

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from hermes_cli.engine.embedded.grammar import Special
    from hermes_cli.engine.embedded.options import EngineOptions
    from hermes_cli.engine.embedded.vocabulary import Vocabulary
    from hermes_cli.planning.load_plan import LoadPlan

MANY_THREADS = 8  # from so many on it is measured whether fewer are faster
WORTH_CHANGING = 0.95  # of the time with the usual number of threads
TRIES = 3
TEMPLATES = {"default": None, "tool_use": "tool_use"}  # names here, and in llama.cpp
# What a file may recommend (llama.cpp's src/llama-arch.cpp, LLM_KV_GENERAL_SAMPLING_*).
SAMPLING_KEYS = (
    "sequence",
    "temp",
    "top_k",
    "top_p",
    "min_p",
    "xtc_probability",
    "xtc_threshold",
    "penalty_last_n",
    "penalty_repeat",
    "mirostat",
    "mirostat_tau",
    "mirostat_eta",
)


@dataclass
class _Words:
    """What is read from the vocabulary."""

    control: list[str]
    added: list[str]
    special: Special


@dataclass
class Ready:
    """A loaded model, and what guesses for it. `adapters` have to stay as long as it is used."""

    model: LlamaModel
    context: LlamaContext
    adapters: list[LoraAdapter]
    grammars: LazyGrammars
    draft: DraftModel | None
    loaded: ModelInfo


def load(path: Path, plan: LoadPlan, options: EngineOptions, progress: Callable[[float], None]) -> Ready:
    """Load as planned.

    Args:
        path: the file, or its first shard.
        plan: how it is loaded.
        options: adapters, tags, a model that guesses, and whether llama.cpp's log is shown.
        progress: is told which part of the weights (0 to 1) has been read.

    Raises:
        IntegrityError: llama.cpp refused a file.
        UsageError: the model that guesses has another vocabulary.
        EngineError: there is no room for a context.
    """
    LOG.verbose = options.verbose
    model = LlamaModel(path, gpu_layers=plan.gpu_layers, tensor_split=plan.tensor_split, progress=progress)
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(_read, model.vocabulary, options.tags)
        context = LlamaContext(model, plan.settings, threads=plan.threads)
        adapters = [LoraAdapter(model, adapter.path) for adapter in options.adapters]
        if adapters:
            context.apply_adapters([(one, said.scale) for one, said in zip(adapters, options.adapters, strict=True)])
        decode_once(context)
        draft = DraftModel(options.draft.path, options.draft.plan, model.vocabulary) if options.draft else None
        words = reading.result()
    if plan.threads >= MANY_THREADS and not plan.gpu_layers:
        context.use_threads(fastest(plan.threads, partial(decode_seconds, context, plan.threads)), plan.threads)
    loaded = replace(_said(model, context, plan, words), draft=options.draft.path.name if options.draft else "")
    return Ready(model, context, adapters, LazyGrammars(model.vocabulary, options.tags), draft, loaded)


def decode_once(context: LlamaContext) -> None:
    """Decode one token and forget it: the first time that reads the weights from the disk."""
    batch = Batch(1)
    batch.add([max(context.model.vocabulary.bos, 0)], 0, 0, outputs=1)
    context.decode(batch)
    context.synchronize()
    context.forget(0)


def fastest(usual: int, seconds: Callable[[int], float]) -> int:
    """How many threads decode one token fastest; fewer than usual only if that is clearly faster.

    Memory feeds only so many cores, and each thread more has to be waited for.

    Args:
        usual: number of threads.
        seconds: measures with so many.
    """
    limit = seconds(usual) * WORTH_CHANGING
    times = {count: seconds(count) for count in (usual * 3 // 4, usual // 2)}
    best = min(times, key=times.__getitem__)
    return best if times[best] < limit else usual


def decode_seconds(context: LlamaContext, prefill: int, decode: int) -> float:
    """The shortest of a few decodes of one token.

    Args:
        context: nothing is in it yet.
        prefill: threads for more than one token.
        decode: threads for one.
    """
    context.use_threads(decode, prefill)
    times = []
    for _ in range(TRIES):
        started = time.perf_counter()
        decode_once(context)
        times.append(time.perf_counter() - started)
    return min(times)


def _read(vocabulary: Vocabulary, tags: Sequence[str]) -> _Words:
    control, added = vocabulary.special_texts()
    return _Words(control, added, special_tokens(vocabulary, tags))


def _said(model: LlamaModel, context: LlamaContext, plan: LoadPlan, words: _Words) -> ModelInfo:
    vocabulary = model.vocabulary
    templates = {name: model.chat_template(known) for name, known in TEMPLATES.items()}
    sampling = {key: model.metadata(f"general.sampling.{key}") for key in SAMPLING_KEYS}
    return ModelInfo(
        context=context.length,
        slots=plan.settings.slots,
        trained_context=model.trained_context,
        parameters=model.parameters,
        weight_bytes=model.weight_bytes,
        vocabulary=vocabulary.size,
        templates={name: source for name, source in templates.items() if source is not None},
        sampling={key: value for key, value in sampling.items() if value is not None},
        bos=vocabulary.text_of(vocabulary.bos),
        eos=vocabulary.text_of(vocabulary.eos),
        adds_bos=vocabulary.adds_bos,
        control=tuple(words.control),
        added=tuple(words.added),
        tags=words.special.tags,
        others=words.special.others,
    )
