"""The address of an endpoint, and the API key for it, which goes to one host.

Keys come from the environment; those of services that host Hermes models may be stored, too (providers.py).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple
from urllib.parse import SplitResult, urlsplit

from hermes_cli.chat.endpoint.providers import stored_key
from hermes_cli.errors import UsageError
from hermes_cli.platforms import is_loopback

ServerKind = Literal["hermes", "llama.cpp", "vllm", "sglang", "ollama", "openrouter", "openai", "other"]

OWN_KEY = "HERMES_LLM_ENDPOINT_KEY"

_OPENAI_KEY, _OPENAI_BASE = "OPENAI_API_KEY", "OPENAI_BASE_URL"
_ROUTES = ("/chat/completions", "/completions", "/models")
_VERSION = re.compile(r"/v\d[^/]*(/|$)")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_PORTS = {"http": 80, "https": 443}


class _Service(NamedTuple):
    """A public service: environment variable that its documentation names for the key, path and kind of its API."""

    variable: str
    path: str
    kind: ServerKind


# openrouter.ai/docs/api/reference/authentication, portal.nousresearch.com/help, platform.openai.com/docs/api-reference.
SERVICES = {
    "openrouter.ai": _Service("OPENROUTER_API_KEY", "/api/v1", "openrouter"),
    "inference-api.nousresearch.com": _Service("NOUS_API_KEY", "/v1", "openrouter"),
    "api.openai.com": _Service(_OPENAI_KEY, "/v1", "openai"),
}


@dataclass(frozen=True)
class EndpointAddress:
    """The address of an API."""

    base: str  # URL before `/chat/completions`
    host: str  # host name in lower case
    key: str | None = None  # API key; None if there is none for this host
    variable: str = OWN_KEY  # environment variable of the key, whether it is set or not
    scheme_guessed: bool = False  # the user named neither http nor https

    @property
    def root(self) -> str:
        """URL without `/v1`, where the routes are that are not OpenAI's."""
        return re.sub(r"/v\d+$", "", self.base)

    @property
    def is_local(self) -> bool:
        """Return whether the host is this machine."""
        return is_loopback(self.host)

    @property
    def exposes_key(self) -> bool:
        """Return whether the key would travel unencrypted over a network."""
        return self.key is not None and not self.is_local and self.base.startswith("http:")


def read_address(text: str, environ: Mapping[str, str]) -> EndpointAddress:
    """Parse an address: with or without scheme and `/v1`, or that of a route; raise UsageError if it is none."""
    text = text.strip()
    scheme = _SCHEME.match(text)
    parts = _split(text if scheme else f"//{text}", text)
    host = (parts.hostname or "").rstrip(".")
    protocol = parts.scheme or ("http" if is_loopback(host) else "https")
    bracketed = f"[{host}]" if ":" in host else host
    port = "" if parts.port in {None, _PORTS[protocol]} else f":{parts.port}"
    path = parts.path.rstrip("/")
    path = next((path.removesuffix(route) for route in _ROUTES if path.endswith(route)), path).rstrip("/")
    if not path and host in SERVICES:
        path = SERVICES[host].path
    elif not _VERSION.search(path):
        path += "/v1"
    base = f"{protocol}://{bracketed}{port}{path}"
    variable, key = _key(host, base, environ)
    return EndpointAddress(base, host, key, variable, scheme_guessed=not scheme)


def _split(url: str, text: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        valid = parts.port != 0 and bool(parts.hostname) and not re.search(r"[\s\\%]", parts.netloc)
    except ValueError:  # a port that is not a number, an unclosed bracket
        parts, valid = SplitResult("", "", "", "", ""), False
    if parts.username is not None or parts.password is not None:
        raise UsageError(
            "--endpoint: an address with a name or key in it can be read by others on this machine.",
            hint=f"leave it out and put the key into the environment: export {OWN_KEY}=…",
        )
    if not valid or parts.scheme not in {"", *_PORTS} or parts.query or parts.fragment:
        raise UsageError(
            f"--endpoint {text!r} is not an address of an API.",
            hint="give it like this: --endpoint http://127.0.0.1:8080/v1.",
        )
    return parts


def _key(host: str, base: str, environ: Mapping[str, str]) -> tuple[str, str | None]:
    """Return the environment variable and the key in it. A key is sent only to the host that it was made for.

    `OPENAI_API_KEY` is for the server in `OPENAI_BASE_URL`, as with OpenAI's own clients; without that, for OpenAI.
    """
    service = SERVICES.get(host)
    openai_base = environ.get(_OPENAI_BASE, "").strip()
    try:
        is_openai = _server(openai_base) == _server(base) if openai_base else host == "api.openai.com"
    except ValueError:
        is_openai = False
    default = _OPENAI_KEY if is_openai else OWN_KEY
    if service and service.variable != _OPENAI_KEY:
        default = service.variable
    for variable in dict.fromkeys((OWN_KEY, default)):
        key = environ.get(variable, "").strip()
        if not key:
            continue
        if not key.isascii() or not key.isprintable() or " " in key:
            raise UsageError(f"{variable} does not hold a key.", hint="copy the key again, without spaces.")
        return variable, key
    return default, stored_key(host)


def _server(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or _PORTS.get(parts.scheme)
