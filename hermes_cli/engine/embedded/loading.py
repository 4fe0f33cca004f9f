"""Loads a model: weights, context, LoRA adapters, a first decode, threads, draft model, saved prefixes."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from hermes_cli.engine.embedded.bindings import LOG
from hermes_cli.engine.embedded.embedder import EmbeddingRuntime
from hermes_cli.engine.embedded.grammar import Grammars
from hermes_cli.engine.embedded.llama import Batch, LlamaContext, LlamaModel, LoraAdapter
from hermes_cli.engine.embedded.messages import EngineOptions, LoadRequest
from hermes_cli.engine.embedded.scheduler import Emit, Scheduler
from hermes_cli.engine.embedded.sequence import Job
from hermes_cli.engine.embedded.speculation import DraftModel
from hermes_cli.engine.embedded.vocabulary import closing_tokens, prompt_tokens
from hermes_cli.engine.protocol import ModelInfo
from hermes_cli.engine.request import PARAMETERS, EmbeddingRequest, GenerationRequest
from hermes_cli.errors import UsageError

if TYPE_CHECKING:
    from hermes_cli.engine.embedded.saved_prefixes import SavedPrefixes

MANY_THREADS = 8  # from so many on it is measured whether fewer are faster
WORTH_CHANGING = 0.95  # of the time with the planned number of threads
TRIES = 3
TEMPLATES = {"default": None, "tool_use": "tool_use"}  # names here, and in llama.cpp


@dataclass
class ModelRuntime:
    """A loaded model with all that works on it."""

    model: LlamaModel
    context: LlamaContext
    grammars: Grammars
    draft: DraftModel | None
    prefixes: SavedPrefixes | None
    options: EngineOptions
    info: ModelInfo

    def warm_up(self) -> None:
        """Read the vocabulary for grammars."""
        self.grammars.tokenizer()

    def scheduler(self, emit: Emit) -> Scheduler:
        """Return a scheduler that gives events to `emit`."""
        return Scheduler(
            self.model,
            self.context,
            emit,
            slots=self.info.slots,
            lookup=self.options.lookup,
            max_queue=self.options.max_queue,
            draft=self.draft,
            saved=self.prefixes,
        )

    def prepare(self, number: int, request: GenerationRequest | EmbeddingRequest) -> Generator[None, None, Job]:
        """Return a request with its tokens and its grammar; yield between the steps of the work."""
        if isinstance(request, EmbeddingRequest):
            raise UsageError("this model writes text, and makes no embeddings.", hint="ask a model for embeddings.")
        vocabulary, length = self.model.vocabulary, self.context.length
        prompt = yield from prompt_tokens(vocabulary, request.prompt, length)
        if self.prefixes:
            self.prefixes.check(request.client, prompt)
        matcher = None
        if request.grammar is not None and len(prompt) < length:  # the scheduler refuses longer ones
            matcher = self.grammars.start(request.grammar)
            if request.grammar_prefix:
                matcher.begin([vocabulary.tokenize(text, special=True) for text in request.grammar_prefix])
        return Job(number, request, prompt, matcher, closing_tokens(vocabulary, request.reasoning))


def load(request: LoadRequest, progress: Callable[[float], None]) -> ModelRuntime | EmbeddingRuntime:
    """Load weights, context, adapters and draft model; decode once; set the number of threads.

    `progress` gets the part of the weights (0 to 1) that has been read.

    Raises:
        IntegrityError: llama.cpp refused a file.
        UsageError: the draft model has another vocabulary.
        EngineError: there is no room for a context.
    """
    path, plan, options = request.path, request.plan, request.options
    LOG.verbose = options.verbose
    model = LlamaModel(
        path, gpu_layers=plan.gpu_layers, tensor_split=plan.tensor_split, devices=plan.devices, progress=progress
    )
    if plan.settings.pooling:
        context = LlamaContext(model, plan.settings, threads=plan.threads)
        decode_once(context)
        return EmbeddingRuntime(request, model, context)
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(Grammars, model.vocabulary, options.tags)
        context = LlamaContext(model, plan.settings, threads=plan.threads)
        if options.adapters:
            context.apply_adapters([(LoraAdapter(model, file.path), file.scale) for file in options.adapters])
        decode_once(context)
        draft = DraftModel(options.draft.path, options.draft.plan, model.vocabulary) if options.draft else None
        grammars = reading.result()
    if plan.threads >= MANY_THREADS and not plan.gpu_layers:
        context.use_threads(fastest(plan.threads, partial(decode_seconds, context, plan.threads)), plan.threads)
    return ModelRuntime(
        model,
        context,
        grammars,
        draft,
        _saved_prefixes(request, context),
        options,
        _model_info(model, context, request, grammars),
    )


def decode_once(context: LlamaContext) -> None:
    """Decode one token and remove it: the first decode reads the weights from the disk."""
    batch = Batch(1)
    batch.add([max(context.model.vocabulary.bos, 0)], 0, 0, outputs=1)
    context.decode(batch)
    context.forget(0)


def fastest(planned: int, seconds: Callable[[int], float]) -> int:
    """Return the number of threads that decode one token fastest; fewer than planned only if clearly faster.

    Memory feeds only so many cores, and each thread more has to be waited for. `seconds` measures a decode.
    """
    limit = seconds(planned) * WORTH_CHANGING
    times = {count: seconds(count) for count in (planned * 3 // 4, planned // 2)}
    best = min(times, key=times.__getitem__)
    return best if times[best] < limit else planned


def decode_seconds(context: LlamaContext, prefill: int, decode: int) -> float:
    """Return the seconds of the shortest of a few decodes of one token, in an empty KV cache, with so many threads."""
    context.use_threads(decode, prefill)
    times = []
    for _ in range(TRIES):
        started = time.perf_counter()
        decode_once(context)
        times.append(time.perf_counter() - started)
    return min(times)


def _saved_prefixes(request: LoadRequest, context: LlamaContext) -> SavedPrefixes | None:
    """Return the caches on disk of the same files, loaded in the same way."""
    options = request.options
    if options.prefixes is None:
        return None
    from hermes_cli.engine.embedded.saved_prefixes import (  # noqa: PLC0415 - most do without
        SavedPrefixes,
        fingerprint,
        key,
    )

    files = (request.path, *(adapter.path for adapter in options.adapters))
    facts = [fingerprint(file) for file in files]
    scales = [adapter.scale for adapter in options.adapters]
    # the content of a cache does not depend on these three
    settings = replace(request.plan.settings, context=0, slots=0, micro_batch=0)
    folder = options.prefixes / key(facts, scales, settings)
    return SavedPrefixes(folder, context, options.prefix_bytes, options.prefix_owners)


def _model_info(model: LlamaModel, context: LlamaContext, request: LoadRequest, grammars: Grammars) -> ModelInfo:
    vocabulary, draft = model.vocabulary, request.options.draft
    control, added = vocabulary.special_texts()
    templates = {name: model.chat_template(known) for name, known in TEMPLATES.items()}
    keys = [parameter.gguf for parameter in PARAMETERS.values() if parameter.gguf]
    sampling = {key: model.metadata(f"general.sampling.{key}") for key in keys}
    return ModelInfo(
        context=context.length,
        slots=request.plan.settings.slots,
        trained_context=model.trained_context,
        parameters=model.parameters,
        weight_bytes=model.weight_bytes,
        vocabulary=vocabulary.size,
        templates={name: source for name, source in templates.items() if source is not None},
        sampling={key: value for key, value in sampling.items() if value is not None},
        bos=vocabulary.text_of(vocabulary.bos),
        eos=vocabulary.text_of(vocabulary.eos),
        adds_bos=vocabulary.adds_bos,
        control=tuple(control),
        added=tuple(added),
        tags=grammars.tags,
        others=grammars.others,
        fim=vocabulary.fim,
        draft=draft.path.name if draft else "",
    )
