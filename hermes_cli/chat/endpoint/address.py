"""Where an endpoint is, and which key is meant for it. Keys come from the environment, and each goes to one host."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import SplitResult, urlsplit

from hermes_cli.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

OWN_KEY = "HERMES_LLM_ENDPOINT_KEY"
EXAMPLE = "give it like this: --endpoint http://127.0.0.1:8080/v1"

_OPENAI_KEY, _OPENAI_BASE = "OPENAI_API_KEY", "OPENAI_BASE_URL"
_ROUTES = ("/chat/completions", "/completions", "/models")
_VERSION = re.compile(r"/v\d[^/]*(/|$)")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_PORTS = {"http": 80, "https": 443}


class _Service(NamedTuple):
    """A public service: the variable that its documentation names for its key, and where its API is."""

    variable: str
    path: str


# openrouter.ai/docs/api/reference/authentication, portal.nousresearch.com/help, platform.openai.com/docs/api-reference.
SERVICES = {
    "openrouter.ai": _Service("OPENROUTER_API_KEY", "/api/v1"),
    "inference-api.nousresearch.com": _Service("NOUS_API_KEY", "/v1"),
    "api.openai.com": _Service(_OPENAI_KEY, "/v1"),
}


@dataclass(frozen=True)
class EndpointAddress:
    """Where an endpoint is.

    Attributes:
        base: the address before `/chat/completions`.
        host: its name alone, in lower case.
        key: what it wants to know before it answers; None if there is none for it.
        variable: the environment variable that `key` is in, or would be.
        guessed: nobody said whether it is http or https.
    """

    base: str
    host: str
    key: str | None = None
    variable: str = OWN_KEY
    guessed: bool = False

    @property
    def root(self) -> str:
        """Where routes are that are not OpenAI's: the address without `/v1`."""
        return re.sub(r"/v\d+$", "", self.base)

    @property
    def local(self) -> bool:
        """Whether it is on this machine."""
        return is_loopback(self.host)

    @property
    def exposed(self) -> bool:
        """Whether the key would travel where others can read it."""
        return self.key is not None and not self.local and self.base.startswith("http:")


def read_address(given: str, environ: Mapping[str, str]) -> EndpointAddress:
    """An address as it is typed: with or without scheme and `/v1`, or that of a route.

    Raises:
        UsageError: it is none, it has a key in it, or the key in the environment cannot be one.
    """
    scheme = _SCHEME.match(given.strip())
    guess = "http" if is_loopback(_host(f"//{given.strip()}")) else "https"
    parts = _split(given.strip() if scheme else f"{guess}://{given.strip()}", given)
    host = (parts.hostname or "").rstrip(".")
    shown = f"[{host}]" if ":" in host else host
    port = "" if parts.port in {None, _PORTS[parts.scheme]} else f":{parts.port}"
    base = f"{parts.scheme}://{shown}{port}{_path(parts.path, host)}"
    variable, key = _key(host, base, environ)
    return EndpointAddress(base, host, key, variable, guessed=not scheme)


def is_loopback(host: str) -> bool:
    """Whether a host's name or address means this machine."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _split(address: str, given: str) -> SplitResult:
    try:
        parts = urlsplit(address)
        valid = parts.port != 0 and bool(parts.hostname) and not re.search(r"[\s\\%]", parts.netloc)
    except ValueError:  # a port that is no number, an unclosed bracket
        parts, valid = SplitResult("", "", "", "", ""), False
    if parts.username is not None or parts.password is not None:
        raise UsageError(
            "--endpoint: an address with a name or key in it can be read by others on this machine.",
            hint=f"leave it out and put the key into the environment: export {OWN_KEY}=…",
        )
    if not valid or parts.scheme not in _PORTS or parts.query or parts.fragment:
        raise UsageError(f"--endpoint {given!r} is no address of an API.", hint=f"{EXAMPLE}.")
    return parts


def _host(address: str) -> str:
    try:
        return urlsplit(address).hostname or ""
    except ValueError:
        return ""


def _path(path: str, host: str) -> str:
    """Of the API; what has no version in it gets one."""
    path = path.rstrip("/")
    path = next((path.removesuffix(route) for route in _ROUTES if path.endswith(route)), path).rstrip("/")
    if not path and host in SERVICES:
        return SERVICES[host].path
    return path if _VERSION.search(path) else f"{path}/v1"


def _key(host: str, base: str, environ: Mapping[str, str]) -> tuple[str, str | None]:
    """The variable and the key in it. A key is only for the host that it was made for.

    `OPENAI_API_KEY` is for whatever `OPENAI_BASE_URL` names, as with OpenAI's own clients; without that, for OpenAI.
    """
    service = SERVICES.get(host)
    meant = environ.get(_OPENAI_BASE, "").strip()
    openai = _same_server(meant, base) if meant else host == "api.openai.com"
    usual = service.variable if service and service.variable != _OPENAI_KEY else _OPENAI_KEY if openai else OWN_KEY
    for variable in dict.fromkeys((OWN_KEY, usual)):
        key = environ.get(variable, "").strip()
        if not key:
            continue
        if not key.isascii() or not key.isprintable() or " " in key:
            raise UsageError(f"{variable} holds something that is no key.", hint="copy the key again, without spaces.")
        return variable, key
    return usual, None


def _same_server(one: str, other: str) -> bool:
    try:
        first, second = urlsplit(one), urlsplit(other)
        ports = [parts.port or _PORTS.get(parts.scheme) for parts in (first, second)]
    except ValueError:
        return False
    return (first.scheme, first.hostname, ports[0]) == (second.scheme, second.hostname, ports[1])
