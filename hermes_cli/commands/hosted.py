"""Models at a service behind `hermes serve`: entries of its file with `upstream`.

Nothing leaves this machine for other entries.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from hermes_cli.catalog.models import CatalogModel, Catalogue
from hermes_cli.catalog.names import CatalogueReference, ModelNames
from hermes_cli.chat.endpoint.address import read_address
from hermes_cli.chat.endpoint.hosted_engine import Budget, HostedModel
from hermes_cli.chat.endpoint.providers import PROVIDERS, hosted_id
from hermes_cli.engine.protocol import ModelInfo
from hermes_cli.engine.upstream.http import EngineAddress
from hermes_cli.errors import NotFoundError, UsageError
from hermes_cli.server.served_models import ServedModel, served_model
from hermes_cli.server.settings import ModelEntry

LONGEST = 131_072  # tokens of context, where the service does not tell
SLOTS = 64


def hosted_model(
    entry: ModelEntry, catalogue: Catalogue, warn: Callable[[str], object], environ: Mapping[str, str]
) -> ServedModel:
    """Return the model of an entry with `upstream`; nothing is requested yet.

    Raise UsageError if the service, the key or the limit is missing, or makes no sense.
    """
    where = (entry.upstream or "").strip()
    provider = PROVIDERS.get(where.lower())
    known = _known(entry.model, catalogue)
    identifier = hosted_id(provider, entry.model, catalogue) if provider else entry.model
    address = read_address(provider.host if provider else where, environ)
    if provider and address.key is None:
        raise UsageError(
            f"there is no key for {provider.title}.",
            hint=f"export {provider.variable}=…, or store it: hermes login {provider.name}",
        )
    if address.exposes_key:
        warn(f"the key for {address.host} goes there unencrypted: others on the way can read it.")
    listed = known.cloud.openrouter_price if known and provider and provider.name == "openrouter" else None
    price = entry.price or ((listed.input, listed.output) if listed else None)
    if entry.spend_limit is None or price is None:
        missing = "spend_limit: 5.00" if entry.spend_limit is None else "price: [1.00, 3.00]"
        raise UsageError(
            f"{entry.model} is at {address.host}, and its entry does not say what it may cost.",
            hint=f"add in USD{' per million tokens in and out' if entry.spend_limit else ''}: {missing}",
        )
    context = entry.context or (listed.context if listed else known.context.usable if known else LONGEST)
    name = entry.name or (known.short if known else identifier.rpartition("/")[2])
    model = HostedModel(
        name=name,
        context=context,
        slots=SLOTS,
        known=known,
        address=EngineAddress(address.base),
        info=ModelInfo(context, SLOTS, context, known.parameters if known else 0, 0, 0),
        note=f"what is asked of {name} leaves this machine, for {address.host}: at most ${entry.spend_limit:.2f}",
        identifier=identifier,
        endpoint=address,
        budget=Budget(entry.spend_limit, price),
        warn=warn,
    )
    return served_model(entry, model, 0, int(time.time()), owner=address.host, open_chat=model.open_chat)


def _known(text: str, catalogue: Catalogue) -> CatalogModel | None:
    try:
        reference = ModelNames(catalogue).parse(text)
    except (NotFoundError, UsageError):
        return None
    return reference.model if isinstance(reference, CatalogueReference) else None
