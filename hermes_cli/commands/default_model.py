"""The model of `hermes chat` and `hermes serve` where none is named; the best one is fetched after a question."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hermes_cli.commands.asking import agreed
from hermes_cli.console import Voice
from hermes_cli.errors import HermesError, NotFoundError
from hermes_cli.models.resolve import recommended
from hermes_cli.units import gigabytes

if TYPE_CHECKING:
    from hermes_cli.catalog.models import Catalogue
    from hermes_cli.console import Console
    from hermes_cli.hardware.machine import Machine
    from hermes_cli.models.resolve import ModelRequest
    from hermes_cli.planning.recommend import Recommendation, RecommendOptions


def default_model(
    command: str,
    settings: ModelRequest,
    options: RecommendOptions,
    catalogue: Catalogue,
    machine: Machine,
    console: Console,
) -> ModelRequest:
    """Return the settings with the best model that is installed; else with the best there is, once it is fetched.

    Args:
        command: that is to run it, for hints.
        settings: of its loading.
        options: the purpose of the model.
        catalogue: all models.
        machine: where the model is to run, with the memory that is free now.
        console: asks and tells.

    Raises:
        NotFoundError: none is installed, and nobody can be asked.
        HermesError: the answer was no.
    """
    hint = f"try the one that ships with hermes: hermes {command} demo"
    fetched = False

    def fetch(best: Recommendation | None) -> None:
        nonlocal fetched
        if best is None:
            raise NotFoundError("no model was named, and no Hermes model fits this machine.", hint=hint)
        _fetch(best, hint, console)
        fetched = True

    request = recommended(settings, options, catalogue, machine, fetch)
    if not fetched:
        console.note(f"{request.name}, the best that is installed (hermes recommend)")
    return request


def _fetch(best: Recommendation, hint: str, console: Console) -> None:
    from hermes_cli.commands.pull import command as pull  # noqa: PLC0415 - the client side of HTTP

    name, size = best.variant.name, gigabytes(best.variant.bytes)
    question = f"No model is here. Fetch {name}, {size}, the best that fits? [Y/n] "
    answer = agreed(question, console, usually=True) if console.voice is Voice.HUMAN else None
    if answer is None:
        raise NotFoundError(
            "no model was named, and no Hermes model that fits is here.", hint=f"hermes pull {name} ({size}). {hint}"
        )
    if not answer:
        raise HermesError("nothing was fetched.", hint=hint)
    pull([name], yes=True)
