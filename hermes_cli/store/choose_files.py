"""The files that a pull takes of a repository on the Hub, by their names and sizes."""

from __future__ import annotations

import re
import shlex
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from os.path import commonprefix

from hermes_cli.catalog.file_names import (
    PIECE_KIND,
    ModelFiles,
    base_name,
    default_model,
    joined_name,
    matching_models,
    models_in,
    piece_count,
    quantization_in_file_name,
    read_quantization,
    refusal,
    why_not_loaded,
)
from hermes_cli.errors import NotFoundError, UsageError
from hermes_cli.store.hub import is_safe

MOST_NAMED = 8  # files in a message
_ARCHIVES, _SAFETENSORS = "archives", "weights for other engines (safetensors)"
_OTHER_KINDS = {  # of weights, by the names of their files
    r"\.(?:7z|rar|zip|tar|tgz|tbz2?|txz)(?:\.\w{2,3})?$": _ARCHIVES,
    r"\.onnx(?:_data)?$": "weights for ONNX Runtime",
    r"\.safetensors$": _SAFETENSORS,
    r"ggml.*\.bin$": "GGML files of 2023, which llama.cpp no longer loads",
    r"\.(?:bin|pth?|ckpt)$": "weights for PyTorch",
}
_ENGINE = re.compile(
    r"(?:-(?:mlx|onnx|awq|gptq|exl[23]|fp8|bnb|int[48]|w?[0-9]bit|[0-9]-?bit|quantized))+\Z", re.IGNORECASE
)


@dataclass(frozen=True)
class FileChoice:
    """The files to fetch of a repository: a model with all its shards or raw parts."""

    name: str  # to be typed
    files: tuple[str, ...]
    notes: tuple[str, ...]  # for the user: why this one, and what is peculiar about it
    others: Mapping[str, tuple[ModelFiles, int]]  # all that it was chosen from, and their bytes, by name


def choose_files(
    repo: str,  # for messages
    sizes: Mapping[str, int],  # bytes of all its files, by path
    wanted: str | None,  # a quantization as typed. None for the usual one of those whose files fit into memory
    room: int | None = None,  # bytes of memory for the files, None if unknown
    best: str | None = None,  # the name of the one to take if none is wanted: it suits this machine best
) -> FileChoice:
    """Return the model to fetch of a repository.

    Raises:
        NotFoundError: there is no such model.
        UsageError: there are several.
    """
    models, companions = models_in(filter(is_safe, sizes))
    if not models:
        raise _no_models(repo, sizes, companions)
    matching = _matching(repo, models, companions, wanted)
    weights = {model: sum(sizes[path] for path in model.paths) for model in matching}
    titles = dict.fromkeys(model.title for model in matching)
    if len(matching) > 1 and (wanted or len(titles) > 1):
        firsts = [model.first for model in matching]
        if not wanted:  # one of each
            by_title = [{model: weights[model] for model in matching if model.title == title} for title in titles]
            firsts = [default_model(quantizations, room)[0].first for quantizations in by_title]
        files = f"{', '.join(firsts[:MOST_NAMED])}{' …' if len(firsts) > MOST_NAMED else ''}"
        raise UsageError(
            f"{repo} has {len(firsts)} models{f' in {wanted}' if wanted else ''}: {files}.",
            hint=f"say which file: hermes pull {shlex.quote(f'{repo}/{firsts[0]}')}",
        )
    chosen, reason = matching[0], ""
    names = _names(repo, models)
    if len(matching) > 1:
        chosen, reason = default_model(weights, room)
        if fitting := [model for model in matching if names[model] == best]:
            chosen, reason = fitting[0], "the best that fits this machine (hermes recommend)"
        labels = _labels(matching)
        others = [labels[model] for model in sorted(weights, key=lambda model: -weights[model]) if model != chosen]
        more = f" and {len(others) - MOST_NAMED} more" if len(others) > MOST_NAMED else ""
        reason = f"took {labels[chosen]}, {reason}; it also has {', '.join(others[:MOST_NAMED])}{more}"
    if not chosen.is_complete:
        raise _incomplete(repo, chosen)
    left_out = "" if wanted else _left_out(models, companions)
    notes = tuple(filter(None, (reason, left_out, *_peculiarities(chosen))))
    return FileChoice(names[chosen], chosen.paths, notes, {names[model]: (model, weights[model]) for model in matching})


def _matching(
    repo: str, models: Sequence[ModelFiles], companions: Mapping[str, str], wanted: str | None
) -> list[ModelFiles]:
    """Return the models in the quantization that is wanted, or all that can be loaded."""
    if not wanted:
        if matching := [model for model in models if not refusal(model)]:
            return matching
        raise _nothing_loads(repo, models)
    if matching := matching_models(models, wanted):
        return matching
    read = read_quantization(wanted)
    if pieces := [path for path in _pieces(companions) if read and quantization_in_file_name(path) == read]:
        raise _only_pieces(repo, pieces)
    parts = "; ".join(f"{path} is {kind}" for path, kind in list(companions.items())[:2])
    offered = ", ".join(dict.fromkeys(_label(model) for model in models if not refusal(model)))
    raise NotFoundError(
        f"{repo} has no {wanted}.",
        hint=f"it has {offered or 'nothing that can be loaded'}{parts and f' ({parts})'}",
    )


def _names(repo: str, models: Sequence[ModelFiles]) -> dict[ModelFiles, str]:
    """Return what is typed for each model: the repository and a quantization, or a file where several have the same."""
    labels = _labels(models)
    return {
        model: f"{repo}:{label}" if label == model.quantization else f"{repo}/{joined_name(model.first)}"
        for model, label in labels.items()
    }


def _label(model: ModelFiles) -> str:
    return model.quantization or model.first


def _labels(models: Sequence[ModelFiles]) -> dict[ModelFiles, str]:
    """Return the quantization of each model; its file where several have the same."""
    counts = Counter(map(_label, models))
    return {model: _label(model) if counts[_label(model)] == 1 else model.first for model in models}


def _left_out(models: Iterable[ModelFiles], companions: Mapping[str, str]) -> str:
    """Return what is left out because it is not whole, as a note; empty if all is."""
    parts = [
        f"{base_name(model.first)} ({len(model.paths)} of {piece_count(model.first)} files are there)"
        for model in models
        if not model.is_complete
    ]
    parts += [f"{path} (a raw piece)" for path in _pieces(companions)]
    more = f" and {len(parts) - MOST_NAMED} more" if len(parts) > MOST_NAMED else ""
    return f"left out: {', '.join(parts[:MOST_NAMED])}{more}" if parts else ""


def _pieces(companions: Mapping[str, str]) -> list[str]:
    return [path for path, kind in companions.items() if kind == PIECE_KIND]


def _only_pieces(repo: str, pieces: Sequence[str]) -> NotFoundError:
    files = shlex.quote(f"{commonprefix(pieces)}*")  # noqa: RUF071 - letters are meant
    return NotFoundError(
        f"{repo} has it only in raw pieces that are not joined here: {', '.join(pieces[:MOST_NAMED])}.",
        hint=f"fetch them: hf download {repo} --include {files} --local-dir . Then join them with cat, and import.",
    )


def _nothing_loads(repo: str, models: Sequence[ModelFiles]) -> NotFoundError:
    """Return the error for a repository whose models are incomplete, or made for other programs."""
    model = next((model for model in models if model.is_complete), models[0])
    if not model.is_complete:
        return _incomplete(repo, model)
    quantization = model.quantization or ""
    same = [other for other in models if other.quantization == quantization]
    name = f"{repo}:{quantization}" if len(same) == 1 else f"{repo}/{model.first}"
    return NotFoundError(
        f"{repo} has nothing that llama.cpp loads: {quantization}: {why_not_loaded(quantization)}.",
        hint=f"look for another repository, or fetch it all the same: hermes pull {shlex.quote(name)}",
    )


def _incomplete(repo: str, model: ModelFiles) -> NotFoundError:
    there = f"{len(model.paths)} of {piece_count(model.first)}"
    return NotFoundError(
        f"{repo} has only {there} files of {base_name(model.first)}.", hint=f"see what it has: hermes show {repo}"
    )


def _peculiarities(model: ModelFiles) -> Iterator[str]:
    if model.is_raw:
        count, name = len(model.paths), base_name(model.first)
        yield f"{name} comes in {count} raw parts; they are joined here, as `cat` would"
    if reason := why_not_loaded(model.quantization):
        yield f"llama.cpp does not load {model.quantization}: {reason}"


def _no_models(repo: str, sizes: Iterable[str], companions: Mapping[str, str]) -> NotFoundError:
    if pieces := _pieces(companions):
        return _only_pieces(repo, pieces)
    if companions:
        path, kind = next(iter(companions.items()))
        return NotFoundError(
            f"{repo} has no model: {path} is {kind}.",
            hint=f"fetch it all the same: hermes pull {shlex.quote(f'{repo}/{path}')}",
        )
    refused = [path for path in sizes if ".gguf" in path.lower() and not is_safe(path)]
    if refused:
        return NotFoundError(
            f"{repo} has no GGUF files whose names can be kept here: {refused[0]!r} is not accepted.",
            hint="look for another repository of the same model.",
        )
    kind = _other_kind(repo, sizes)
    if kind == _ARCHIVES:
        hint = f"fetch and unpack them: hf download {repo} --local-dir . Then: hermes import FILE"
    else:
        name = _ENGINE.sub("", repo.rpartition("/")[2])
        hint = f"look for a repository that has some: hermes search {shlex.quote(name)}"
        if kind == _SAFETENSORS:
            hint += f"; or fetch it for vLLM and SGLang: hermes pull {shlex.quote(repo)}@safetensors"
    return NotFoundError(f"{repo} has no GGUF files{f', only {kind}' if kind else ''}.", hint=hint)


def _other_kind(repo: str, paths: Iterable[str]) -> str:
    """Return what a repository without GGUF files has in place of them, by their names; empty if that is unknown."""
    names = "\n".join(paths)
    kind = next((kind for words, kind in _OTHER_KINDS.items() if re.search(words, names, re.MULTILINE)), "")
    return "weights for MLX" if kind and "mlx" in repo.lower() else kind
