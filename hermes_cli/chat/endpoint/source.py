"""Partners from an endpoint, by the names that it has for its models."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from hermes_cli.chat.endpoint import probe as models
from hermes_cli.chat.endpoint.address import read_address
from hermes_cli.chat.endpoint.endpoint_backend import connect
from hermes_cli.chat.endpoint.http_client import EndpointClient

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from hermes_cli.chat.endpoint.endpoint_backend import EndpointBackend
    from hermes_cli.chat.event_loop import EventLoop


class Endpoint:
    """Opens models behind one address."""

    def __init__(
        self,
        given: str,
        loop: EventLoop,
        note: Callable[[str], object],
        warn: Callable[[str], object],
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        """Nothing is asked yet.

        Args:
            given: the address, as it is typed.
            loop: where connections live.
            note: is told of waits.
            warn: is told what must be seen: a key in the clear, calls that cannot be run.
            environ: where keys are.

        Raises:
            UsageError: the address is none, or its key cannot be one.
        """
        self._address = read_address(given, environ)
        self._loop, self._note, self._warn = loop, note, warn
        if self._address.exposed:
            warn(
                f"the key in {self._address.variable} goes to {self._address.host} unencrypted: others on the way can "
                "read it."
            )

    def names(self) -> list[str]:
        """Of the models that it has.

        Raises:
            HermesError: it does not say.
        """
        return self._loop.run(self._listed())

    def open(self, name: str | None) -> EndpointBackend:
        """Whoever gets it has to close it.

        Args:
            name: as the endpoint names its model; None takes the only one there is.

        Raises:
            UsageError: the key is not accepted, or there are several models and none was named.
            NotFoundError: there is no such model, or no API.
            NetworkError: it cannot be reached.
        """
        return self._loop.run(connect(self._address, name, self._note, self._warn))

    @contextmanager
    def opening(self, name: str | None) -> Iterator[Callable[[], EndpointBackend]]:
        """What is yielded opens it. There is nothing to begin earlier: it takes one question to the server."""
        yield lambda: self.open(name)

    async def _listed(self) -> list[str]:
        wire = EndpointClient(self._address, self._note)
        try:
            return [str(model.get("id") or model.get("name")) for model in await models.listed(wire)]
        finally:
            await wire.close()
