"""Which model of the catalogue a GGUF file from elsewhere is, and how sure that is.

A hash proves it. Without one, the shape of the weights must fit and the name must be exactly one of the model's own:
dozens of fine-tunes share Llama 3's shape, and many are named after the model that they changed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from hermes_cli.catalog.names import CatalogueReference, ModelNames
from hermes_cli.catalog.quantizations import normalize_name
from hermes_cli.catalog.variants import matching_variants
from hermes_cli.errors import IntegrityError, NotFoundError, UsageError
from hermes_cli.gguf.reader import ArrayInfo
from hermes_cli.gguf.types import FILE_TYPES
from hermes_cli.store.inventory import whole_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from hermes_cli.catalog.models import CatalogModel, Catalogue
    from hermes_cli.gguf.header import GGUFHeader
    from hermes_cli.store.known import KnownFile
    from hermes_cli.store.other_tools import Candidate

Sureness = Literal["hash", "size", "header", "unknown"]

SAID = {
    "hash": "certain: its SHA-256 is the Hub's",
    "size": "very likely: name, header and exact size fit",
    "header": "likely: name and header fit",
    "unknown": "not in the catalogue",
}
NEAR = 0.01  # a file whose size is only computed or listed may differ by this part and still be worth hashing


@dataclass(frozen=True)
class Identity:
    """What a file is. With the sureness `hash`, `known` are the Hub's files that it is, one for each of its own."""

    sureness: Sureness
    model: CatalogModel | None = None
    quantization: str | None = None
    known: tuple[KnownFile, ...] = ()


def identify(
    candidate: Candidate, catalogue: Catalogue, known: Sequence[KnownFile], hash_of: Callable[[Path], str]
) -> Identity:
    """Find out what a file from elsewhere is. It is hashed only if it could be one whose hash is known.

    Raises:
        IntegrityError: it has the name and size of a file on the Hub, but not its hash.
        OSError: it cannot be read.
    """
    by_hash = _by_hash(candidate, known, hash_of)
    if by_hash:
        variant = by_hash[0].variant
        return Identity("hash", variant.model, variant.quantization, by_hash)
    names = ModelNames(catalogue)
    claims = [claim for text in _claims(candidate) if (claim := _claimed(text, names))]
    called = [one.variant for one in known if one.name.lower() == candidate.names[0].lower()]
    claims += [CatalogueReference(variant.model, variant.quantization) for variant in called]
    claims = [claim for claim in claims if _fits(candidate.header, claim.model)]
    said = next((claim.quantization for claim in claims if claim.quantization), None)
    quantization = _quantization(candidate.header, said, frozenset(catalogue.quantizations))
    if len({claim.model.id for claim in claims}) != 1 or quantization is None:
        return Identity("unknown")
    model = claims[0].model
    exact = {one.bytes for one in matching_variants(model, quantization=quantization) if one.size_source == "stated"}
    return Identity("size" if candidate.bytes in exact else "header", model, quantization)


def _by_hash(
    candidate: Candidate, known: Sequence[KnownFile], hash_of: Callable[[Path], str]
) -> tuple[KnownFile, ...] | None:
    found = []
    for path, name in zip(candidate.files, candidate.names, strict=True):
        size = path.stat().st_size
        possible = [one for one in known if one.sha256 and _could_be(one, size)]
        if not possible:
            return None
        digest = hash_of(path)
        match = next((one for one in _preferred(possible, candidate) if one.sha256 == digest), None)
        if match is None:
            _refuse_damaged(path, name, size, possible)
            return None
        found.append(match)
    together = len({(one.repo, one.revision) for one in found}) == 1
    return tuple(found) if together else None


def _preferred(possible: list[KnownFile], candidate: Candidate) -> list[KnownFile]:
    """The same file is in several repositories; the one whose folder it was found in comes first."""
    return sorted(possible, key=lambda one: one.repo.lower() != candidate.repo.lower())


def _could_be(known: KnownFile, size: int) -> bool:
    if known.bytes is not None:
        return known.bytes == size
    expected = known.variant.bytes
    return len(known.variant.files) == 1 and (expected is None or abs(expected - size) <= NEAR * size)


def _refuse_damaged(path: Path, name: str, size: int, possible: Iterable[KnownFile]) -> None:
    same = next((one for one in possible if one.name == name and one.bytes == size), None)
    if same:
        raise IntegrityError(
            f"{path} is damaged or altered: it has the name and size of {same.repo}/{same.path}, but not its SHA-256.",
            hint=f"fetch a good copy: hermes pull {same.variant.name}",
        )


def _fits(header: GGUFHeader, model: CatalogModel) -> bool:
    """Whether the shape of the weights is that of the model, as far as the header says."""
    expected = model.architecture
    figures = {
        "block_count": expected.layers,
        "embedding_length": expected.embedding_length,
        "feed_forward_length": expected.feed_forward_length,
        "attention.head_count": expected.heads,
        "attention.head_count_kv": expected.kv_heads,
    }
    said = {key: header.number(key) for key in figures}
    return (
        header.text("general.architecture") == expected.kind
        and said["block_count"] is not None
        and said["embedding_length"] is not None
        and all(said[key] in {None, figures[key]} for key in figures)
        and (header.number("expert_count") or 0) == expected.experts
        and _vocabulary(header) in {None, expected.vocabulary}
    )


def _vocabulary(header: GGUFHeader) -> int | None:
    tokens = header.metadata.get("tokenizer.ggml.tokens")
    return tokens.count if isinstance(tokens, ArrayInfo) else None


def _quantization(header: GGUFHeader, said: str | None, names: frozenset[str]) -> str | None:
    """As the name says if the header agrees; as the header says if the name says nothing."""
    number = header.number("general.file_type")
    mix = FILE_TYPES.get(number) if number is not None else None
    if said is None:
        return mix if mix in names else None
    return said if mix is None or _same_mix(said, mix) else None


def _same_mix(said: str, mix: str) -> bool:
    """`Q6_K_L` and `UD-Q4_K_XL` are Q6_K and Q4_K_M in their headers: what they share is the number of bits."""
    return said == mix or normalize_name(said.removeprefix("UD-"))[:2] == normalize_name(mix)[:2]


def _claims(candidate: Candidate) -> Iterator[str]:
    """What a file is called: by its surroundings, by its name, and by its header.

    The header's name counts only if the file's own does not say Hermes: a file that does, in words that are no model's,
    is somebody's variation with the header of the original.
    """
    yield from candidate.claims
    yield whole_name(candidate.names[0]).removesuffix(".gguf")
    title = candidate.header.text("general.name")
    if title and "hermes" not in normalize_name(candidate.names[0]):
        yield title


def _claimed(text: str, names: ModelNames) -> CatalogueReference | None:
    try:
        meant = names.parse(text)
    except (NotFoundError, UsageError):
        return None
    return meant if isinstance(meant, CatalogueReference) else None
