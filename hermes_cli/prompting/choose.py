"""Choice of the prompt format of a model, with the reason.

Ours where its text is proven equal to the published one; the file's own for models whose published template is known
only in part (DeepHermes 3, Hermes 4), unless it lacks what the model can do or belongs to another model; the file's own
for models that we don't know. Never decided by the architecture: Hermes 4.3 is a Seed-OSS model that reads Llama 3's
turns, and many of its files carry the ChatML template of Hermes 4 14B.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from hermes_cli.errors import HermesError, NotFoundError, UsageError
from hermes_cli.prompting.families import (
    ALPACA,
    CHATML,
    HERMES_4,
    HERMES_4_IDENTITY,
    LLAMA_3,
    TURN_TOKENS,
    Family,
    Markup,
    family_of,
)
from hermes_cli.prompting.render import FileFormat, Format, OurFormat
from hermes_cli.prompting.template import ChatTemplate, read_template

if TYPE_CHECKING:
    from hermes_cli.catalog.models import CatalogModel, Catalogue

DEFAULT, TOOL_USE = "default", "tool_use"  # how GGUF calls `tokenizer.chat_template` and `tokenizer.chat_template.X`


@dataclass(frozen=True)
class FileTemplates:
    """Chat templates and special tokens of a model file."""

    templates: Mapping[str, str] = field(default_factory=dict)  # sources by name; `default` is the unnamed one
    knows: Callable[[str], bool] = lambda _: True  # whether a text is one token of the vocabulary
    bos: str = ""  # how it spells the token that begins a text
    eos: str = ""  # how it spells the one that ends a text


@dataclass(frozen=True)
class TemplateChoice:
    """A format, and the reason in one sentence."""

    format: Format
    why: str


def choose(file: FileTemplates, model: CatalogModel | None = None, override: str | None = None) -> TemplateChoice:
    """Return the format for a model; raise UsageError if the template that is asked for is not there or broken.

    `override` is `file` or `model` for one of the two, or the path of a template; None decides by what is certain.
    """
    chooser = _Chooser(file, model)
    if override is None:
        return chooser.by_itself()
    if override == "file":
        return chooser.of_file("as --template asks for")
    if override == "model":
        return chooser.ours(chooser.family or chooser.by_vocabulary(), "as --template asks for")
    return TemplateChoice(chooser.file_format(read_template(Path(override))), f"{override}: as --template asks for")


def prepare(source: str, model: CatalogModel | None = None) -> None:
    """Compile the template of a file ahead of `choose`, if that will most likely take it."""
    family = family_of(model) if model else None
    if family is None or not family.proven:
        with suppress(HermesError):  # told when it is chosen
            ChatTemplate(source)


def policy(model: CatalogModel) -> str:
    """Return the rule for files of a model, before one is seen."""
    family = family_of(model)
    if family is None:
        return "the file's own; its prompt format is not known for certain"
    if family.proven:
        return f"hermes' own for {family.title}, equal to the published one"
    return "the file's own, unless it lacks tools or reasoning or is another model's; then hermes' own"


def identify(names: Iterable[str], number: Callable[[str], int | None], catalogue: Catalogue) -> CatalogModel | None:
    """Return the model of the catalogue that a file holds, by its `names`: `general.name`, the name of the file.

    Its shape must be the same, too: `number` returns one by its GGUF key, `block_count` and the like.
    """
    from hermes_cli.catalog.names import CatalogueReference, ModelNames  # noqa: PLC0415 - only for files given by path

    known = ModelNames(catalogue)
    for name in names:
        for spelled in (name, name.replace("_", "-").partition("-")[2]):  # owner_model, as some files are named
            try:
                reference = known.parse(spelled)
            except (NotFoundError, UsageError):
                continue
            if isinstance(reference, CatalogueReference):
                shape = reference.model.architecture
                if (number("block_count"), number("embedding_length")) == (shape.layers, shape.embedding_length):
                    return reference.model
    return None


@dataclass(frozen=True)
class _Chooser:
    file: FileTemplates
    model: CatalogModel | None

    @property
    def family(self) -> Family | None:
        return family_of(self.model) if self.model else None

    def by_itself(self) -> TemplateChoice:
        family = self.family
        if family and family.proven and self._reads(family.markup):
            return self.ours(family, "equal to the published one")
        if family and not family.proven:
            if fault := next(self._faults(family), None):
                return self.ours(family, fault)
            return self.of_file(f"the published template of {family.title} is known only in part")
        if DEFAULT not in self.file.templates:
            return self.ours(self.by_vocabulary(), "the file carries none; this goes by its vocabulary")
        if foreign := self._foreign():
            return self.ours(self.by_vocabulary(), foreign)
        return self.of_file("no other is known for this model")

    def ours(self, family: Family, why: str) -> TemplateChoice:
        return TemplateChoice(OurFormat(family, self.file.bos), f"hermes' own for {family.title}: {why}")

    def of_file(self, why: str) -> TemplateChoice:
        if DEFAULT not in self.file.templates:
            raise UsageError("this file carries no chat template.", hint="take hermes' own: --template model")
        more = " and `tool_use`" if TOOL_USE in self.file.templates else ""
        return TemplateChoice(self.file_format(), f"the file's own{more}: {why}")

    def by_vocabulary(self) -> Family:
        """Return the family that the tokens were made for, for a model that nothing else is known of."""
        if self._reads("chatml"):
            return CHATML
        if self._reads("llama-3"):
            is_hermes_4 = HERMES_4_IDENTITY in self.file.templates.get(DEFAULT, "")
            return HERMES_4 if is_hermes_4 else LLAMA_3
        return ALPACA

    def _faults(self, family: Family) -> Iterator[str]:
        """Yield the reasons why the file's template is not for a model of this family."""
        source = self.file.templates.get(DEFAULT)
        if source is None:
            yield "the file carries none"
            return
        other = _markup(source)
        if other and other != family.markup:
            yield f"the file's is another model's, it writes {TURN_TOKENS[other][0]}"
        if foreign := self._foreign():
            yield foreign
        try:
            template = self.file_format()
        except UsageError:
            yield "the file's is broken"
            return
        if family.tools and not template.takes_tools:
            yield "the file's takes no tools"
        if family.reasoning == "thinking" and template.plain.thinking is None:
            yield "the file's has no switch for reasoning"

    def _foreign(self) -> str:
        """Return the reason if the file's template writes turns that its vocabulary does not know, else nothing."""
        markup = _markup(self.file.templates.get(DEFAULT, ""))
        others = [other for other in TURN_TOKENS if other not in {markup, "alpaca"} and self._reads(other)]
        if markup is None or self._reads(markup) or not others:
            return ""
        return f"the file's is another model's, {TURN_TOKENS[markup][0]} is not a token of its vocabulary"

    def _reads(self, markup: Markup) -> bool:
        return all(map(self.file.knows, TURN_TOKENS[markup]))

    def file_format(self, source: str | None = None) -> FileFormat:
        """Return a template as a format: one from the user, or those that the file carries."""
        sources = self.file.templates if source is None else {DEFAULT: source}
        compiled = {
            name: ChatTemplate(sources[name], bos=self.file.bos, eos=self.file.eos)
            for name in (DEFAULT, TOOL_USE)
            if name in sources
        }
        prompted = self.family is not None and self.family.reasoning is not None
        stop = self.model.prompt.stop if self.model else ()
        return FileFormat(compiled[DEFAULT], compiled.get(TOOL_USE), prompted, stop)


def _markup(source: str) -> Markup | None:
    markups = [markup for markup, tokens in TURN_TOKENS.items() if tokens and all(token in source for token in tokens)]
    return markups[0] if len(markups) == 1 else None
