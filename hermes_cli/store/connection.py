"""The proxies and the token of requests to the Hub, checked first: what is wrong with them is told by their names."""

from __future__ import annotations

import importlib.util
import logging
import os
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import httpx2
from huggingface_hub import constants, get_token

from hermes_cli.errors import AccessError, NetworkError
from hermes_cli.paths import access_error

PROXY_VARIABLES = {"http_proxy", "https_proxy", "all_proxy"}  # in upper case, too
PROXY_SCHEMES = {"http", "https", "socks5", "socks5h"}  # that httpx2 speaks
PROXY_HINT = "for example: export ALL_PROXY=socks5://127.0.0.1:1080, or http:// for a proxy that speaks HTTP"
LOG_IN_HINT = "copy it again from the Hub's page (Settings, Access Tokens), or log in: hf auth login"

_log = logging.getLogger(__name__)


def check_connection() -> None:
    """Check proxies and token; `socks://`, as GNOME sets it, is made the `socks5://` that it means there.

    A token that may not be read is warned of once, and requests go on without: public models need none.

    Raise NetworkError if a proxy cannot be used, or a token cannot be sent.
    """
    for variable, address in list(os.environ.items()):
        if variable.lower() in PROXY_VARIABLES and address:
            os.environ[variable] = _proxy_address(variable, address.strip())
    try:
        hub_token()
    except AccessError as error:
        _log.warning("%s Going on without it, which public models allow. To mend it: %s", error.message, error.hint)


def hub_token() -> str | None:
    """Return the token that is sent to the Hub; None if there is none.

    Raises:
        AccessError: its file may not be read; requests after this go without a token.
        NetworkError: it holds what no token has.
    """
    place = "HF_TOKEN" if os.environ.get("HF_TOKEN") else constants.HF_TOKEN_PATH
    try:
        token = None if constants.HF_HUB_DISABLE_IMPLICIT_TOKEN else get_token()
    except UnicodeDecodeError:
        raise NetworkError(f"the token in {place} is not text.", hint=LOG_IN_HINT) from None
    except OSError as error:
        if error.filename is None:
            raise
        constants.HF_HUB_DISABLE_IMPLICIT_TOKEN = True
        raise access_error(os.fsdecode(error.filename), error) from None
    if odd := next((letter for letter in token or "" if not "!" <= letter <= "~"), None):
        raise NetworkError(f"the token in {place} has the letter {odd!r}, which no token has.", hint=LOG_IN_HINT)
    return token


def _proxy_address(variable: str, address: str) -> str:
    scheme, separator, rest = address.partition("://")
    if not separator:
        scheme, rest = "http", address
    if scheme.lower() == "socks":
        scheme = "socks5"
    try:
        known = scheme.lower() in PROXY_SCHEMES and bool(httpx2.URL(f"{scheme}://{rest}").host)
    except httpx2.InvalidURL:
        known = False
    if not known:
        shown = f"{scheme}://{rest.rpartition('@')[2]}"  # without a password
        raise NetworkError(f"the proxy in {variable}, {shown}, is not understood.", hint=PROXY_HINT)
    if scheme.lower().startswith("socks") and importlib.util.find_spec("socksio") is None:
        raise NetworkError(
            f"the proxy in {variable} speaks SOCKS, and the package for that, socksio, is not installed.",
            hint="install it: pip install 'httpx2[socks]'",
        )
    return f"{scheme}://{rest}"


def proxy_fault(error: Exception) -> tuple[str, str] | None:
    """Return what is wrong with the proxy to the Hub, and its variable, if an error is its fault."""
    if not isinstance(error, (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.ProxyError)) or "SSL" in str(error):
        return None
    target, proxies = urlsplit(constants.ENDPOINT), getproxies()
    scheme = next((scheme for scheme in (target.scheme, "all") if proxies.get(scheme)), None)
    if scheme is None or proxy_bypass(target.hostname or ""):
        return None
    names = (f"{scheme}_proxy", f"{scheme}_proxy".upper())
    variable = next((name for name in names if os.environ.get(name)), "the system's settings")
    problem = "refuses" if isinstance(error, httpx2.ProxyError) else "cannot be reached"
    address = proxies[scheme].rpartition("@")[2].rpartition("://")[2].rstrip("/")
    return f"the proxy in {variable} ({address}) {problem}: {str(error) or type(error).__name__}", variable
