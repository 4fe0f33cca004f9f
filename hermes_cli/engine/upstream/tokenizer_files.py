"""Facts about a vocabulary from files on this disk: a Hugging Face folder, or a GGUF of the same model.

vLLM and SGLang tell neither control tokens nor chat templates over HTTP. A folder has `tokenizer.json`,
`tokenizer_config.json`, `config.json`, and may have `generation_config.json` and `*.jinja`.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from hermes_cli.errors import HermesError, IntegrityError, NotFoundError
from hermes_cli.gguf.header import GGUFHeader, read_header
from hermes_cli.gguf.reader import Value
from hermes_cli.paths import access_error

FILES = ("tokenizer.json", "tokenizer_config.json", "config.json")
MAX_BYTES = 256 << 20  # of one of the files; the largest known has 33 MB

# Tokens that end a generation, wherever a vocabulary has them as control tokens (llama.cpp's llama-vocab.cpp).
_ENDS = {
    *("<|im_end|>", "<|endoftext|>", "<|end_of_text|>", "<|eot_id|>", "<|eom_id|>", "<|end|>", "<end_of_turn>"),
    *("<EOT>", "<|return|>", "<|call|>", "<seed:eos>", "</s>"),
}
_BRACKETED = re.compile(r"<[^<>\s]+>|\[[^\[\]\s]+\]")  # how special tokens are spelled that somebody added
_BYTE = re.compile(r"<0x([0-9A-F]{2})>")
_UNKNOWN, _CONTROL, _USER_DEFINED, _UNUSED = 2, 3, 4, 5  # of `tokenizer.ggml.token_type`
_GGUF_ARRAYS = ("tokenizer.ggml.tokens", "tokenizer.ggml.token_type")
# Of generation_config.json, and what `ModelInfo.sampling` calls it.
_SHAPE = {"block_count": "num_hidden_layers", "embedding_length": "hidden_size"}
_SAMPLING = {
    "temperature": "temp",
    "top_k": "top_k",
    "top_p": "top_p",
    "min_p": "min_p",
    "repetition_penalty": "penalty_repeat",
}


@dataclass(frozen=True)
class TokenizerFacts:
    """A vocabulary and what belongs to it."""

    source: Path  # where it is from
    tokens: Mapping[int, str]  # their spelling in the vocabulary, by id
    control: Mapping[str, int]  # texts of control tokens with their ids; `added`: those of user-defined ones
    added: Mapping[str, int]
    ends: frozenset[int]  # ids of the tokens that end a generation
    bos: str = ""
    eos: str = ""
    byte_level: bool = True  # spelled with GPT-2's letters for bytes, else as SentencePiece does
    # sources of chat templates by name; `default` is the unnamed one
    templates: dict[str, str] = field(default_factory=dict)
    # recommended options, by their names behind `general.sampling.`
    sampling: dict[str, str] = field(default_factory=dict)
    trained_context: int = 0  # tokens that the model was trained for; 0 if it is not told
    parameters: int = 0  # number of weights, for a folder a formula's; 0 if it is not told

    @cached_property
    def size(self) -> int:
        """The number of tokens."""
        return max(self.tokens, default=-1) + 1

    @cached_property
    def _special(self) -> dict[int, bytes]:
        return {token: text.encode() for texts in (self.control, self.added) for text, token in texts.items()}

    def piece(self, token: int) -> bytes:
        """Return the bytes of a token, control tokens included; nothing for padding of the vocabulary."""
        if (special := self._special.get(token)) is not None:
            return special
        text = self.tokens.get(token, "")
        if self.byte_level:
            return b"".join(_BYTES.get(letter) or letter.encode() for letter in text)
        byte = _BYTE.fullmatch(text)
        return bytes([int(byte[1], 16)]) if byte else text.replace("\u2581", " ").encode()

    def others(self, tags: Iterable[str]) -> tuple[int, ...]:
        """Return the tokens that are not text, without those of `tags` and those that end a generation."""
        texts = {*self.control, *(text for text in self.added if _BRACKETED.fullmatch(text))} - {*tags}
        numbers = (self.control.get(text, self.added.get(text, -1)) for text in texts)
        return tuple(sorted({*numbers} - self.ends))


def read_tokenizer(path: Path) -> TokenizerFacts:
    """Read a folder, or a GGUF file.

    Raises:
        NotFoundError: it is not there, or lacks a file.
        IntegrityError: it cannot be read.
        InvalidGGUFError: it is a file, and no GGUF.
        AccessError: it may not be read.
    """
    if path.is_file():
        return _of_gguf(path)
    if not path.is_dir():
        raise NotFoundError(
            f"--tokenizer {path}: there is nothing.", hint=f"give a folder with {', '.join(FILES)}, or a GGUF file."
        )
    return _of_folder(path)


def _of_gguf(path: Path) -> TokenizerFacts:
    header = read_header(path, _GGUF_ARRAYS)
    texts, kinds = (header.metadata.get(name) for name in _GGUF_ARRAYS)
    if not isinstance(texts, tuple) or not isinstance(kinds, tuple) or len(texts) != len(kinds):
        raise IntegrityError(f"{path} has no tokenizer.", hint="give another file of this model.")
    tokens = {number: str(text) for number, text in enumerate(texts)}
    known = {kind: {tokens[n]: n for n, other in enumerate(kinds) if other == kind} for kind in {*kinds}}
    control = known.get(_CONTROL, {}) | known.get(_UNKNOWN, {})
    names = ("bos", "eos", "eot", "eom")
    ids = {name: header.number(f"tokenizer.ggml.{name}_token_id") for name in names}
    texts_of = {name: tokens.get(-1 if number is None else number, "") for name, number in ids.items()}
    templates = _behind("tokenizer.chat_template", header)
    return TokenizerFacts(
        path,
        tokens,
        control,
        known.get(_USER_DEFINED, {}),
        _ends(control, {number for name, number in ids.items() if number is not None and name != "bos"}),
        bos=texts_of["bos"],
        eos=texts_of["eos"],
        byte_level=header.text("tokenizer.ggml.model") == "gpt2",
        templates={name.lstrip(".") or "default": source for name, source in templates if isinstance(source, str)},
        sampling={name: str(value) for name, value in _behind("general.sampling.", header)},
        trained_context=header.number("context_length") or 0,
        parameters=_parameters_of_gguf(header),
    )


def _behind(prefix: str, header: GGUFHeader) -> Iterator[tuple[str, Value]]:
    """Yield the entries whose names begin so, by the rest of their names."""
    for name, value in header.metadata.items():
        if name.startswith(prefix):
            yield name.removeprefix(prefix), value


def _parameters_of_gguf(header: GGUFHeader) -> int:
    return 0 if header.split else sum(math.prod(tensor.shape) for tensor in header.tensors)


def _of_folder(folder: Path) -> TokenizerFacts:
    missing = [name for name in FILES if not (folder / name).is_file()]
    if missing:
        raise NotFoundError(
            f"{folder} has no {' and no '.join(missing)}.",
            hint="give the folder of the model's repository with its tokenizer, or a GGUF file of this model.",
        )
    tokenizer, config, model = (_json(folder / name) for name in FILES)
    generation = _json(folder / "generation_config.json") if (folder / "generation_config.json").is_file() else {}
    try:
        listed = tokenizer["model"]["vocab"]
        pairs = listed.items() if isinstance(listed, dict) else ((entry[0], n) for n, entry in enumerate(listed))
        tokens = {int(number): str(text) for text, number in pairs}
        added: dict[str, int] = {}
        control: dict[str, int] = {}
        for entry in tokenizer.get("added_tokens") or ():
            tokens[entry["id"]] = entry["content"]
            (control if entry.get("special") else added)[entry["content"]] = entry["id"]
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise IntegrityError(f"{folder / FILES[0]} is no tokenizer: {error!r}.", hint="fetch it again.") from None
    every = added | control
    bos, eos = _token_text(config.get("bos_token")), _token_text(config.get("eos_token"))
    stated = {*_numbers(model.get("eos_token_id")), *_numbers(generation.get("eos_token_id"))}
    return TokenizerFacts(
        folder,
        tokens,
        control,
        added,
        _ends(control, stated | ({every[eos]} if eos in every else set())),
        bos=bos,
        eos=eos,
        byte_level="ByteLevel" in json.dumps(tokenizer.get("decoder")),
        templates=_templates(folder, config),
        sampling=_recommended(generation),
        trained_context=next(iter(_numbers(model.get("max_position_embeddings"))), 0),
        parameters=_parameters_of_config(model),
    )


def config_number(folder: Path, key: str) -> int | None:
    """Return a whole number of a folder's `config.json` by its name in GGUF files; None if there is none."""
    try:
        return next(iter(_numbers(_json(folder / "config.json").get(_SHAPE.get(key, key)))), None)
    except HermesError:  # told by whoever reads all of it
        return None


def _recommended(generation: Mapping[str, Any]) -> dict[str, str]:
    values = {ours: generation.get(name) for name, ours in _SAMPLING.items()}
    return {
        name: f"{value:.6g}"
        for name, value in values.items()
        if isinstance(value, (int, float)) and not isinstance(value, bool)
    }


def _parameters_of_config(config: Mapping[str, Any]) -> int:
    """Return the weights of a dense model with gated feed-forward layers and grouped queries; 0 for any other."""
    try:
        layers, width, inner, heads = (
            int(config[name])
            for name in ("num_hidden_layers", "hidden_size", "intermediate_size", "num_attention_heads")
        )
        size = int(config.get("head_dim") or width // heads)
        attention = 2 * width * size * (heads + int(config.get("num_key_value_heads") or heads))
        outer = int(config["vocab_size"]) * width * (1 if config.get("tie_word_embeddings") else 2)
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return 0
    if any("expert" in name for name in config):
        return 0
    return layers * (attention + 3 * width * inner) + outer


def _templates(folder: Path, config: Mapping[str, Any]) -> dict[str, str]:
    stated = config.get("chat_template")
    templates = {"default": stated} if isinstance(stated, str) else {}
    if isinstance(stated, list):
        templates = {
            str(entry["name"]): str(entry["template"])
            for entry in stated
            if isinstance(entry, dict) and {"name", "template"} <= {*entry}
        }
    files = {"default": folder / "chat_template.jinja"}
    files |= {file.stem: file for file in sorted((folder / "additional_chat_templates").glob("*.jinja"))}
    return templates | {name: _text(file) for name, file in files.items() if file.is_file()}


def _ends(control: Mapping[str, int], stated: Iterable[int]) -> frozenset[int]:
    return frozenset({*(number for text, number in control.items() if text in _ENDS), *stated})


def _token_text(value: object) -> str:
    text = value.get("content") if isinstance(value, dict) else value
    return text if isinstance(text, str) else ""


def _numbers(value: object) -> list[int]:
    values = value if isinstance(value, list) else [value]
    return [number for number in values if isinstance(number, int) and not isinstance(number, bool)]


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(_text(path))
    except (ValueError, RecursionError) as error:
        raise IntegrityError(f"{path} is not JSON: {error}.", hint="fetch it again.") from None
    if not isinstance(value, dict):
        raise IntegrityError(f"{path} is not a JSON object.", hint="fetch it again.")
    return value


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise IntegrityError(f"{path} has more than {MAX_BYTES >> 20} MB.", hint="give a folder of a tokenizer.")
        return path.read_text("utf-8", "replace")
    except PermissionError as error:
        raise access_error(path, error) from None
    except OSError as error:
        raise IntegrityError(
            f"{path} cannot be read: {error.strerror or error}.", hint="check that its disk is well."
        ) from None


def _letters() -> dict[str, bytes]:
    """Return the bytes that GPT-2's vocabulary spells with each letter (`bytes_to_unicode` of its encoder.py)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    rest = [byte for byte in range(0x100) if byte not in printable]
    letters = {chr(byte): bytes([byte]) for byte in printable}
    return letters | {chr(0x100 + number): bytes([byte]) for number, byte in enumerate(rest)}


_BYTES = _letters()
