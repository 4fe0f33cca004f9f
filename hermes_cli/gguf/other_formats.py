"""Recognize files that are no GGUF under the name of one: pointers, answers of servers, weights in other formats."""

from __future__ import annotations

import re

GIVE_A_GGUF = "give the path of a model in GGUF format; its name usually ends in .gguf."
CONVERT = "fetch a GGUF of the model, or make one with convert_hf_to_gguf.py of llama.cpp."
NEWER_CONVERSION = "fetch a conversion to GGUF; llama.cpp no longer loads these."
FETCH_THE_FILE = "fetch the file itself: hermes pull OWNER/REPOSITORY, or git lfs pull in a clone."
FETCH_AGAIN = "if a download made this file, fetch it again; for a gated or private repository log in: hf auth login"
LONGEST_EXCERPT = 60  # characters

# By the first bytes, white space left out.
_BY_START: tuple[tuple[bytes, str, str], ...] = (
    (b"version https://git-lfs", "it is a Git LFS pointer, not the model", FETCH_THE_FILE),
    (b"version https://hawser", "it is a Git LFS pointer, not the model", FETCH_THE_FILE),
    (b"tjgg", "it is a GGJT file of 2023, older than GGUF", NEWER_CONVERSION),
    (b"lmgg", "it is a GGML file of 2023, older than GGUF", NEWER_CONVERSION),
    (b"fmgg", "it is a GGMF file of 2023, older than GGUF", NEWER_CONVERSION),
    (b"PK\x03\x04", "it is a zip archive, perhaps PyTorch weights", CONVERT),
    (b"\x80\x02", "it is a Python pickle, perhaps PyTorch weights", CONVERT),
    (b"\x1f\x8b", "it is compressed with gzip", "unpack it first: gunzip."),
    (b"\x28\xb5\x2f\xfd", "it is compressed with Zstandard", "unpack it first: unzstd."),
    (b"<", "it is a web page", FETCH_AGAIN),
)
_SAFETENSORS = re.compile(rb"(?s).{6}\x00\x00\{\s*\"")


def other_format(start: bytes) -> tuple[str, str]:
    """Return what a file without GGUF's magic number is, by its first few hundred bytes, and what to do about it."""
    if not start:
        return "it is empty", "fetch the file again."
    if not start.strip(b"\0"):
        return "it begins with zeros: its place was reserved, but it was never written", "fetch the file again."
    bare = start.lstrip(b"\xef\xbb\xbf \t\r\n")
    for magic, what, hint in _BY_START:
        if bare[: len(magic)].lower() == magic.lower():
            return what, hint
    if _SAFETENSORS.match(start):
        return "it has weights in the format safetensors", CONVERT
    text = bare.decode("utf-8", "ignore")
    if text and all(character.isprintable() or character.isspace() for character in text):
        line = " ".join(text.split())
        excerpt = line if len(line) <= LONGEST_EXCERPT else f"{line[:LONGEST_EXCERPT]}…"
        kind = "JSON" if bare[:1] in (b"{", b"[") else "a text"
        return f"it is {kind}, perhaps the answer of a server: {excerpt}", FETCH_AGAIN
    return "it does not start with the letters GGUF", GIVE_A_GGUF
