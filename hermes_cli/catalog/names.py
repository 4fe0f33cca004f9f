"""Names of models and what they refer to. The grammar is written out in docs/catalogue.md.

    demo                                                   the model that ships with hermes
    hermes-3:8b   hermes-3:8b:Q5_K_M   Hermes3 8B q5km     a model of the catalogue, by any of its names
    hermes3:8b-llama3.1-q4_K_M                             the same, as Ollama spells it
    NousResearch/Hermes-3-Llama-3.1-8B-GGUF:Q4_K_M         a repository on the Hub, or its URL
    somebody/Some-GGUF/some.gguf                           a file of a repository, unless there is such a path
    hermes-4:70b@fp8   NousResearch/Hermes-4-70B-FP8       weights for vLLM and SGLang: a whole repository
    somebody/Some-Model@safetensors                        the same, of a repository that no catalogue lists
    ./model.gguf                                           a file

Case and punctuation do not matter in names of the catalogue. This module reads names only; whether a file is there is
the library's business.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from hermes_cli.catalog.engine_weights import EngineWeights, all_weights, engine_weights, listed_weights, named_weights
from hermes_cli.catalog.file_names import ALIASES, normalize_name
from hermes_cli.errors import NotFoundError, UnknownModelError, UsageError

if TYPE_CHECKING:
    from hermes_cli.catalog.models import CatalogModel, Catalogue

DEMO = "demo"
ANY_WEIGHTS = "safetensors"  # behind the @ of a repository that no catalogue lists
MOST_NAMED = 8  # models in a hint; longer lists do not help
LONGEST_NAME = 4096  # what a path may be; nothing longer names anything

_REPO = re.compile(r"^(?P<owner>[A-Za-z0-9][\w.-]*)/(?P<name>[A-Za-z0-9][\w.-]*?)(?::(?P<quantization>[\w.-]+))?\Z")
_REPO_FILE = re.compile(r"^(?P<repo>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)/(?P<file>.+\.gguf)\Z", re.IGNORECASE)
_HUB_HOST = re.compile(r"^(?:https?://)?(?:www\.)?(?:hf\.co|huggingface\.co)/|^hf://", re.IGNORECASE)
_FILE_IN_URL = re.compile(r"^(?:resolve|blob|raw)/[^/]+/(?P<file>.+)\Z")
_DASHES = dict.fromkeys(map(ord, "\u2010\u2011\u2013\u2014\u2212"), "-")  # what word processors make of hyphens
_AROUND = " \t\r\n\u2018\u2019\u201c\u201d"  # and of quotes
_WINDOWS_DRIVE = re.compile(r"^[A-Za-z]:[\\/]")


@dataclass(frozen=True)
class DemoReference:
    """The model that ships with hermes."""


@dataclass(frozen=True)
class FileReference:
    """A path, which need not exist."""

    path: Path


@dataclass(frozen=True)
class CatalogueReference:
    """A model of the catalogue; `repository` where the user chose one of its repositories."""

    model: CatalogModel
    quantization: str | None = None
    repository: str | None = None


@dataclass(frozen=True)
class HubReference:
    """A repository that is not in the catalogue, with the quantization (as typed) or the file that is meant."""

    repo: str
    quantization: str | None = None
    file: str | None = None


@dataclass(frozen=True)
class WeightsReference:
    """Weights for vLLM and SGLang: a whole repository; `weights` if the catalogue lists it."""

    repo: str
    weights: EngineWeights | None = None

    @property
    def name(self) -> str:
        """Return the name to type."""
        return self.weights.name if self.weights else f"{self.repo}@{ANY_WEIGHTS}"


ModelReference = DemoReference | FileReference | CatalogueReference | HubReference | WeightsReference


class ModelNames:
    """The names of one catalogue, ready to be looked up."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue, self._models = catalogue, catalogue.models
        families: dict[str, list[CatalogModel]] = {}
        self._known: dict[str, CatalogModel] = {}
        for model in catalogue.models:
            families.setdefault(model.short.partition(":")[0], []).append(model)
            self._known |= dict.fromkeys(spellings(model), model)
        for family, models in families.items():
            if len(models) == 1:  # a family with one model goes by the family's name, too
                self._known.setdefault(normalize_name(family), models[0])
        refreshed = {
            name for model in catalogue.models for repository in model.gguf for name in repository.quantizations
        }
        endings = ALIASES | {normalize_name(name): name for name in (*catalogue.quantizations, *refreshed)}
        self._endings = dict(sorted(endings.items(), key=lambda item: -len(item[0])))

    def parse(self, text: str) -> ModelReference:
        """Return the model, repository or file that a name stands for.

        Raises:
            NotFoundError: it is not a name; the hint holds the nearest ones.
            UsageError: it is empty, or the name of several models.
        """
        text = text.strip(_AROUND)
        if not text or len(text) > LONGEST_NAME or "\0" in text:
            raise UsageError("that is not the name of a model.", hint="list them: hermes list")
        if text.lower() == DEMO:
            return DemoReference()
        if text.startswith(("/", "./", "../", "~", ".\\", "..\\")) or _WINDOWS_DRIVE.match(text):
            return FileReference(Path(os.path.expanduser(text)))  # noqa: PTH111 - Path.expanduser raises for unknown users
        if "@" in text and (weights := self._weights(text)):
            return weights
        if "/" not in text and (known := self._in_catalogue(text) or self._named_weights(text)):
            return known
        is_address = "://" in text or _HUB_HOST.match(text) or (_REPO_FILE.match(text) and not os.path.exists(text))  # noqa: PTH110 - as below
        if not is_address and (text.lower().endswith(".gguf") or os.path.exists(text)):  # noqa: PTH110 - Path.exists raises on odd names
            return FileReference(Path(text))
        if address := _hub_address(text):
            return self._listed(address) or self._listed_weights(address) or address
        raise self._unknown(text)

    def _weights(self, text: str) -> WeightsReference | None:
        """Return the weights that `MODEL@FORMAT` means; None if what is before the @ is not a model."""
        head, _, suffix = text.rpartition("@")
        reference = self._in_catalogue(head) if "/" not in head else None
        address = _hub_address(head) if "/" in head else None
        if address:
            reference = self._listed(address)
            if reference is None and address.quantization is address.file is None:
                listed = self._listed_weights(address)
                return listed or (WeightsReference(address.repo) if suffix.lower() == ANY_WEIGHTS else None)
        if reference is None or reference.quantization or (reference.repository and address is None):
            return None
        weights = named_weights(reference.model, "bf16" if suffix.lower() == ANY_WEIGHTS else suffix)
        if weights is None:
            offered = ", ".join(weights.name for weights in engine_weights(reference.model))
            raise NotFoundError(
                f"{reference.model.short} has no weights {suffix or 'without a name'} for vLLM and SGLang.",
                hint=f"choose one of: {offered}; or one for llama.cpp: hermes show {reference.model.short}",
            )
        return WeightsReference(weights.repo, weights)

    def _named_weights(self, text: str) -> WeightsReference | None:
        """Return the weights by the name of their repository without its owner: `Hermes-4-70B-FP8`."""
        whole = normalize_name(text)
        every = all_weights(self._catalogue)
        weights = next((weights for weights in every if normalize_name(weights.repo.partition("/")[2]) == whole), None)
        return WeightsReference(weights.repo, weights) if weights else None

    def _listed_weights(self, address: HubReference) -> WeightsReference | None:
        """Return the weights whose repository this is; those as published go by the model's own name."""
        if address.file is not None or address.quantization is not None:
            return None
        weights = listed_weights(address.repo, self._catalogue)
        return WeightsReference(weights.repo, weights) if weights else None

    def _in_catalogue(self, text: str) -> CatalogueReference | None:
        whole = normalize_name(text)
        if model := self._known.get(whole):
            return CatalogueReference(model)
        lower = text.lower()
        for model in self._models:
            for tag in model.ollama:  # `hermes3:8b-llama3.1-q4_K_M`: the quantization stands behind the last dash
                if tag.endswith("*") and lower.startswith(tag[:-1]):
                    return CatalogueReference(model, self._quantization(lower[len(tag) - 1 :], model))
        head, colon, tail = text.rpartition(":")
        if colon and (model := self._known.get(normalize_name(head))):
            return CatalogueReference(model, self._quantization(tail, model))
        for ending, quantization in self._endings.items():
            if whole.endswith(ending) and (model := self._known.get(whole.removesuffix(ending))):
                return CatalogueReference(model, quantization)
        return None

    def _quantization(self, typed: str, model: CatalogModel) -> str:
        name = named_quantization(typed, model) or self._endings.get(normalize_name(typed))
        if name is None:
            offered = dict.fromkeys(name for repository in model.gguf for name in repository.quantizations)
            hint = f"choose one of: {', '.join(offered)}" if offered else "leave the quantization out."
            if near := near_quantizations(typed, offered):
                hint = f"did you mean {' or '.join(near)}? All of them: hermes show {model.short}"
            if weights := named_weights(model, typed):
                hint = f"for vLLM and SGLang it is {weights.name}; for llama.cpp {hint}"
            raise NotFoundError(f"{model.short} has no quantization {typed}.", hint=hint)
        return name

    def _listed(self, address: HubReference) -> CatalogueReference | None:
        """Return the model whose repository this is, unless a file is named, or a quantization not known of there."""
        if address.file is not None:
            return None
        wanted, typed = address.repo.lower(), address.quantization
        for model in self._models:
            listed = next((listed for listed in model.gguf if listed.repo.lower() == wanted), None)
            if listed:
                name = named_quantization(typed, model) if typed else None
                known = typed is None or name in listed.quantizations
                return CatalogueReference(model, name, listed.repo) if known else None
            if model.weights.original.lower() == wanted:
                return CatalogueReference(model, self._quantization(typed, model) if typed else None)
        return None

    def _unknown(self, text: str) -> NotFoundError | UsageError:
        wanted = normalize_name(text)
        shorts = [model.short for model in self._models]
        family = [short for short in shorts if normalize_name(short.partition(":")[0]) == wanted]
        several = family or [short for short in shorts if wanted and normalize_name(short).startswith(wanted)]
        if len(several) > 1:
            which = f"say which: {', '.join(several)}" if len(several) <= MOST_NAMED else "list them: hermes list"
            return UsageError(f"{text} is the name of {len(several)} models.", hint=which)
        known = {spelling: model.short for spelling, model in self._known.items()} | {DEMO: DEMO}
        import difflib  # noqa: PLC0415 - some milliseconds, and only errors need it

        near = several or list(dict.fromkeys(known[key] for key in difflib.get_close_matches(wanted, known, 4)))
        others = f"the models of others are on the Hub: hermes search {shlex.quote(text)}; ours: hermes list"
        hint = f"did you mean {' or '.join(near)}? All of them: hermes list" if near else others
        return UnknownModelError(text, hint=hint)


def near_quantizations(typed: str, offered: Iterable[str]) -> list[str]:
    """Return the quantizations that somebody may have meant, the most used first: those of as many bits, or alike."""
    import difflib  # noqa: PLC0415 - as above

    names = {normalize_name(name): name for name in offered}
    typed = normalize_name(typed)
    alike = difflib.get_close_matches(typed, names, 2)
    return [name for key, name in names.items() if key.startswith(typed)][:3] or [names[key] for key in alike]


def named_quantization(typed: str, model: CatalogModel) -> str | None:
    """Return the quantization of a model's known files that a typed name means, or None."""
    entries = {name: entry for repository in model.gguf for name, entry in repository.quantizations.items()}
    word = normalize_name(typed)
    if exact := next((name for name in entries if normalize_name(name) == word), None):
        return exact
    spelled = next((name for name, entry in entries.items() if normalize_name(entry.spelled or "") == word), None)
    return spelled or next((name for name in entries if name == ALIASES.get(word)), None)


def spellings(model: CatalogModel) -> dict[str, str]:
    """Return every name of a model that needs no quantization: plain form -> as it is written."""
    tags = [tag for tag in model.ollama if not tag.endswith("*")]
    written = [model.short, model.id, model.name, model.weights.original.partition("/")[2], *tags]
    return {normalize_name(name): name for name in reversed(written)}


def _hub_address(text: str) -> HubReference | None:
    """Return the repository, quantization and file of `owner/name[:quantization]` or of an address on the Hub."""
    rest, file = text, None
    mirror = os.environ.get("HF_ENDPOINT", "").rstrip("/")
    prefix = _HUB_HOST.match(text) or (re.match(re.escape(mirror) + "/", text) if mirror else None)
    if prefix:
        owner, _, rest = unquote(urlsplit(text[prefix.end() :]).path).strip("/").partition("/")
        name, _, inside = rest.partition("/")
        rest = f"{owner}/{name}"
        if match := _FILE_IN_URL.match(inside):
            file = match["file"]
        elif inside.lower().endswith(".gguf"):
            file = inside
    elif match := _REPO_FILE.match(text):
        rest, file = match["repo"], match["file"]
    match = _REPO.match(rest.translate(_DASHES))
    if match is None:
        return None
    tag = match["quantization"]
    # `latest` is the tag that Ollama puts where none is typed.
    return HubReference(f"{match['owner']}/{match['name']}", None if tag == "latest" else tag, file)
