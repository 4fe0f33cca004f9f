"""Facts in the names of GGUF files: quantization, shards and raw parts, and files that are not a model by themselves.

The same rules read a repository before a download, the file lists of `hermes catalog refresh`, and files on this disk.
A quantization is read by the form of its name, so those that no catalogue lists are known as well: `Q4_K_M`,
`IQ4_XS`, `UD-Q6_K_XL`, `Q4_0_4_4`, `TQ1_0`, `MXFP4_MOE`, `NVFP4`, `BF16`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache, lru_cache

# Names for the same thing, as listings and people write them (llama.cpp's own aliases, and `fp16`).
ALIASES = {"fp32": "F32", "fp16": "F16", "q3k": "Q3_K_M", "q4k": "Q4_K_M", "q5k": "Q5_K_M"}
# Bare bits in a file name: what DeepHermes' official files mean by them (their sizes fit).
BITS_IN_FILE_NAMES = {"q4": "Q4_0", "q5": "Q5_0", "q6": "Q6_K", "q8": "Q8_0"}

SHARD = re.compile(r"-(\d{5})-of-(\d{5})\.gguf\Z")
PART = re.compile(r"\.gguf\.part(\d+)of(\d+)\Z")  # a raw piece, to be joined before use
UNCOUNTED_PART = re.compile(r"\.gguf-split-[a-z]\Z", re.IGNORECASE)  # the same, but how many there are is not said

_NOT_ALPHANUMERIC = re.compile(r"[^a-z0-9]+")
_SIZE = r"(xxs|xs|s|m|l|xxl|xl|p)"
_FORMS = rf"""
    (?:(ud)~)?
    (?: (q\d) ~ (?: (k)(?:~{_SIZE})? | ([0-3])(?:~([48])~([48]))?(?:~{_SIZE})? | (kv) ) (?:~(r4|r8|r16))?
      | (iq\d) ~ (xxs|xs|s|m|l|xl|nl|kss|ks|kl|kt|k|bn)(?:~([48])~([48]))?(?:~{_SIZE})? (?:~(r4|r8|r16))?
      | (tq\d) ~ (\d)
      | (mxfp\d|nvfp\d)(?:~(moe))?
      | (bf16|f16|f32|f64|fp16|fp32)
    )""".replace("~", "[-_]?")


@cache
def _quantization() -> re.Pattern[str]:
    """Return the pattern of a quantization. It takes 6 ms to compile, which not every command needs."""
    return re.compile(_FORMS, re.VERBOSE | re.IGNORECASE)


@cache
def _in_name() -> re.Pattern[str]:
    """Return the pattern of a quantization within a name."""
    return re.compile(rf"(?<![a-z0-9])(?:{_FORMS}|q[4568])(?![a-z0-9])", re.VERBOSE | re.IGNORECASE)


_REMOVED = re.compile(r"_[48]_[48]$|^Q4_[23]\Z")  # Q4_0_4_4, IQ4_NL_4_4, Q4_2 and their kin
_IK_LLAMA = re.compile(r"^IQ\d_(K|KS|KSS|KL|KT|BN)(_|$)|_R(4|8|16)$|^Q8_KV")

# Pieces in ways of naming that do not say how to join them, such as X.part01.gguf, X.gguf.00, X.gguf.partaa.
_PIECE = re.compile(
    r"[._-](?:part|chunk)[._-]?\d+(?:[._-]?of[._-]?\d+)?\.gguf\Z"
    r"|\.gguf[._-]?(?:(?:part|split|chunk)[._-]?(?:\d+|[a-z]{1,2})|\d{1,5}|a[a-z])\Z",
    re.IGNORECASE,
)
_GGUF = re.compile(rf"\.gguf$|{PART.pattern}|{UNCOUNTED_PART.pattern}|{_PIECE.pattern}", re.IGNORECASE)
PIECE_KIND = "a raw piece of a file: join all of them with cat"
_PROJECTOR = r"mmproj|projector|(?<![a-z0-9])clip(?![a-z0-9])"
_VOCODER, _CONTROL_VECTOR = r"vocoder|wavtokenizer", r"(?<![a-z0-9])control[-_]?vectors?(?![a-z0-9])"
_DRAFT_HEAD = r"(?<![a-z0-9])eagle-?3(?![a-z0-9])"
_AT_ANY_PRECISION = {_PROJECTOR, _VOCODER, _CONTROL_VECTOR, _DRAFT_HEAD}
_COMPANIONS = {  # words in the folder and the plain name of files that are not a model
    _PROJECTOR: "the part that reads images or sound (mmproj)",
    _VOCODER: "the part that makes sound (vocoder)",
    _CONTROL_VECTOR: "a control vector for another model",
    _DRAFT_HEAD: "a draft head (EAGLE-3), which guesses ahead for another model",
    r"^imatrix/|/imatrix(?![a-z0-9])|(?<![a-z0-9])imatrix\Z": "data for quantizing (imatrix)",
    r"^loras?/|/(?:ggml-)?(?:lora|adapter)(?![a-z0-9])(?!.*merged)|(?<![a-z0-9])(?:lora|adapter)$": "an adapter (LoRA)",
    r"/(?:ggml-)?vocab(?![a-z0-9])|(?<![a-z0-9])(?:vocab(?:-only)?|tokenizer)\Z": "a vocabulary",
}
_DRAFTS = {  # they are whole models if a repository has nothing else
    re.compile(r"^mtp/|/mtp(?![a-z0-9])|(?<![a-z0-9])mtp\Z"): "layers for guessing ahead (MTP)",
    re.compile(r"(?<![a-z0-9])draft(?:er)?(?![a-z0-9])"): "a draft model, which guesses ahead for another",
}

# The order in which a quantization is taken if none is named: what most people run, then what is nearest to it.
USUAL_ORDER = (
    *("Q4_K_M", "UD-Q4_K_XL", "Q4_K_XL", "Q4_K_L", "Q4_K_S", "MXFP4_MOE", "MXFP4", "IQ4_NL", "IQ4_XS", "Q4_1", "Q4_0"),
    *("Q5_K_M", "UD-Q5_K_XL", "Q5_K_L", "Q5_K_S", "Q5_1", "Q5_0", "Q6_K", "UD-Q6_K_XL", "Q6_K_L", "Q8_0"),
    *("UD-Q8_K_XL", "Q3_K_L", "Q3_K_M", "UD-Q3_K_XL", "Q3_K_XL", "IQ3_M", "IQ3_S", "IQ3_XS", "Q3_K_S", "IQ3_XXS"),
    *("NVFP4", "BF16", "F16", "Q2_K_L", "UD-Q2_K_XL", "Q2_K", "IQ2_M", "F32"),
)


def normalize_name(text: str) -> str:
    """Return letters and digits only, in lower case: `Q4_K_M` and `q4-k-m` are the same."""
    return _NOT_ALPHANUMERIC.sub("", text.lower())


@lru_cache(maxsize=512)
def read_quantization(text: str) -> str | None:
    """Return the quantization that a text states and nothing else, spelled as usual, or None."""
    word = normalize_name(text)
    if word in ALIASES:
        return ALIASES[word]
    match = _quantization().fullmatch(word)
    return _spelled(match) if match else None


def _spelled(match: re.Match[str]) -> str:
    dynamic, *words = match.groups()
    return ("UD-" if dynamic else "") + "_".join(word.upper() for word in words if word)


def quantization_in_file_name(path: str) -> str | None:
    """Return the quantization in the path of a file: the last in its name, else in that of the nearest folder."""
    match = _last_quantization(path)
    if match is None:
        return None
    word = normalize_name(match[0])
    return ALIASES.get(word) or BITS_IN_FILE_NAMES.get(word) or _spelled(match)


def _last_quantization(path: str) -> re.Match[str] | None:
    for name in reversed(_stem(path).split("/")):
        matches = list(_in_name().finditer(name))
        if matches:
            return matches[-1]
    return None


def _stem(path: str) -> str:
    return re.sub(r"\.gguf\Z", "", base_name(path), flags=re.IGNORECASE)


def why_not_loaded(quantization: str | None) -> str | None:
    """Return why llama.cpp loads no files in a quantization, by its name; None if it does, as far as that says."""
    if quantization and _REMOVED.search(quantization):
        return "it was removed; take Q4_0, which is rearranged for the processor at load"
    if quantization and _IK_LLAMA.search(quantization):
        return "it is made for ik_llama.cpp"
    return None


def joined_name(name: str) -> str:
    """Return the name of the file that a raw part belongs to (`X.gguf.part1of2` -> `X.gguf`); other names stay."""
    return UNCOUNTED_PART.sub(".gguf", PART.sub(".gguf", name))


def base_name(name: str) -> str:
    """Return a file name without the number of its shard or raw part."""
    return joined_name(SHARD.sub(".gguf", name))


def piece_count(name: str) -> int:
    """Return the number of shards or raw parts that the name of one of them states, 1 for a whole file."""
    match = SHARD.search(name) or PART.search(name)
    return int(match[2]) if match else 1


def sibling_names(name: str, count: int) -> list[str]:
    """Return the names of all shards or raw parts of a model, given one of them."""
    if SHARD.search(name):
        return [SHARD.sub(f"-{number:05}-of-{count:05}.gguf", name) for number in range(1, count + 1)]
    if PART.search(name):
        return [PART.sub(f".gguf.part{number}of{count}", name) for number in range(1, count + 1)]
    return [name]


def group_files(names: Iterable[str]) -> list[tuple[str, ...]]:
    """Group file names by model: the shards or raw parts of one together and in order, all other files alone."""
    groups: dict[tuple[str, int], list[str]] = {}
    for name in names:
        groups.setdefault((base_name(name), piece_count(name)), []).append(name)
    return [tuple(sorted(group, key=lambda name: (len(name), name))) for group in groups.values()]


@dataclass(frozen=True)
class ModelFiles:
    """The files of one model in one quantization: a whole file, all shards, or all raw parts."""

    paths: tuple[str, ...]
    quantization: str | None  # as their names state it

    @property
    def first(self) -> str:
        """Return the file that stands for all."""
        return self.paths[0]

    @property
    def is_complete(self) -> bool:
        """Return whether there are as many shards or raw parts as their names say."""
        if UNCOUNTED_PART.search(self.first):
            letters = [path[-1].lower() for path in self.paths]
            return len(letters) > 1 and letters == [chr(ord("a") + number) for number in range(len(letters))]
        return len(self.paths) == piece_count(self.first)

    @property
    def is_raw(self) -> bool:
        """Return whether these are pieces that must be joined before anything can read them."""
        return joined_name(self.first) != self.first

    @property
    def title(self) -> str:
        """Return the plain name of the model: the same for all its quantizations."""
        folder, _, name = _stem(self.first).rpartition("/")
        if match := next(reversed(list(_in_name().finditer(name))), None):
            name = name[: match.start()] + name[match.end() :]
        elif not _in_name().search(folder):
            name = f"{folder}/{name}"
        return normalize_name(re.sub(r"[-._](i1|imat|imatrix)(?=$|[-._])", "", name, flags=re.IGNORECASE))


def refusal(model: ModelFiles) -> str | None:
    """Return why a model is not taken unless it is named."""
    return why_not_loaded(model.quantization) or (None if model.is_complete else "files are missing")


def models_in(paths: Iterable[str]) -> tuple[list[ModelFiles], dict[str, str]]:
    """Return the models among the files of a repository, and for each other GGUF file what it is instead."""
    groups = [model_files(group) for group in group_files(filter(_GGUF.search, paths))]
    kinds = {group: kind for group in groups if (kind := _companion(group))}
    models = [group for group in groups if group not in kinds]
    drafts = {
        group: kind for group in models for words, kind in _DRAFTS.items() if words.search(_plain_name(group.first))
    }
    if len(drafts) < len(models):  # if all are called so, they are whole models that can do this besides
        kinds |= drafts
    companions = {path: kind for group, kind in kinds.items() for path in group.paths}
    return [group for group in models if group not in kinds], companions


def model_files(paths: tuple[str, ...]) -> ModelFiles:
    """Return the files of one model, with the quantization that their names state."""
    return ModelFiles(paths, quantization_in_file_name(paths[0]))


def _companion(group: ModelFiles) -> str | None:
    if _PIECE.search(group.first) and not group.is_raw and not SHARD.search(group.first):
        return PIECE_KIND
    plain, is_precise = _plain_name(group.first), group.quantization in {None, "F16", "BF16", "F32", "Q8_0"}
    for words, kind in _COMPANIONS.items():
        # A quantized file with such a word is a model that was made with it: `X-imatrix-Q4_K_M`, `X-lora-Q4_K_M`.
        if re.search(words, plain) and (is_precise or words in _AT_ANY_PRECISION):
            return kind
    return None


def _plain_name(path: str) -> str:
    """Return the nearest folder and the name in lower case, without the ending and a quantization at the end."""
    folder, _, name = _stem(path).lower().rpartition("/")
    match = next(reversed(list(_in_name().finditer(name))), None)
    if match and match.end() == len(name):
        name = name[: match.start()].rstrip("-._ ")
    return f"{folder.rpartition('/')[2]}/{name}"


def matching_models(models: Iterable[ModelFiles], wanted: str) -> list[ModelFiles]:
    """Return the models with a quantization as it is typed: by its exact name if any has it, else by a likeness.

    The likenesses, in this order: another spelling (`fp16`, `Q4_K`); without unsloth's `UD-`; words of
    the name, if they are not a quantization.
    """
    models = list(models)
    typed, read = normalize_name(wanted), read_quantization(wanted)
    exact = [model for model in models if typed and typed == _stated(model.first)]
    usual = [model for model in models if read and model.quantization == read]
    dynamic = [model for model in models if read and model.quantization == f"UD-{read}"]
    words = re.compile(rf"(?<![a-z0-9]){re.escape(wanted.strip())}(?![a-z0-9])", re.IGNORECASE)
    by_words = [model for model in models if typed and not read and words.search(_stem(model.first))]
    return exact or usual or dynamic or by_words


def _stated(path: str) -> str:
    match = _last_quantization(path)
    return normalize_name(match[0]) if match else ""


def default_model(
    sizes: Mapping[ModelFiles, int],  # bytes of each; those that llama.cpp cannot load are left out by the caller
    room: int | None,  # bytes of memory for it, None if unknown
) -> tuple[ModelFiles, str]:
    """Return the model to take of several quantizations of one, and why: its apposition in a sentence."""
    rank = {name: number for number, name in enumerate(USUAL_ORDER)}

    def order(model: ModelFiles) -> tuple[int, bool, int]:
        name = model.quantization or ""
        static = name.removeprefix("UD-")
        return rank.get(name, rank.get(static, len(rank))), name != static, -sizes[model]

    ordered = sorted(sizes, key=order)
    usual = ordered[0]
    if room is None or sizes[usual] <= room:
        is_usual = usual.quantization == USUAL_ORDER[0]
        return usual, "what most people run" if is_usual else f"the nearest to {USUAL_ORDER[0]}"
    fitting = [model for model in ordered if sizes[model] <= room]
    if not fitting:
        return min(ordered, key=lambda model: sizes[model]), "the smallest, though it is larger than the free memory"
    return max(fitting, key=lambda model: sizes[model]), "the largest that fits into the free memory"
