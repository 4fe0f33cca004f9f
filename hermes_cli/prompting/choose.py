"""Choice of the prompt format of a model, with the reason.

Ours where its text is proven equal to the published one; the file's own for models whose published template is known
only in part (DeepHermes 3, Hermes 4), unless it lacks what the model can do or belongs to another model; the file's own
for models that we don't know. Never decided by the architecture: Hermes 4.3 is a Seed-OSS model that reads Llama 3's
turns, and many of its files carry the ChatML template of Hermes 4 14B.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from hermes_cli.errors import NotFoundError, UsageError
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
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from hermes_cli.catalog.models import CatalogModel, Catalogue
    from hermes_cli.catalog.names import ModelReference

DEFAULT, TOOL_USE = "default", "tool_use"  # how GGUF calls `tokenizer.chat_template` and `tokenizer.chat_template.X`


def _knows_all(_: str) -> bool:
    return True


@dataclass(frozen=True)
class FileTemplates:
    """Chat templates and special tokens of a model file.

    Attributes:
        templates: sources of its chat templates by name; `default` is the unnamed one.
        knows: whether a text is one token of its vocabulary; without a vocabulary everything is taken to be.
        bos: how it spells the token that begins a text.
        eos: how it spells the one that ends a text.
    """

    templates: Mapping[str, str] = field(default_factory=dict)
    knows: Callable[[str], bool] = _knows_all
    bos: str = ""
    eos: str = ""


@dataclass(frozen=True)
class TemplateChoice:
    """A format, and the reason in one sentence."""

    format: Format
    why: str


def choose(carried: FileTemplates, model: CatalogModel | None = None, wanted: str | None = None) -> TemplateChoice:
    """The format for a model.

    Args:
        carried: what its file says.
        model: what it is in the catalogue, if it is there.
        wanted: `file` or `model` for one of the two, or the path of a template; None decides by what is certain.

    Raises:
        UsageError: the template that is wanted is not there or broken.
    """
    chooser = _Chooser(carried, model)
    if wanted is None:
        return chooser.by_itself()
    if wanted == "file":
        return chooser.of_file("as --template asks for")
    if wanted == "model":
        return chooser.ours(chooser.family or chooser.by_vocabulary(), "as --template asks for")
    return chooser.from_path(Path(wanted))


def policy(model: CatalogModel) -> str:
    """Return the rule for files of a model, before one is seen."""
    family = family_of(model)
    if family is None:
        return "the file's own; its prompt format is not known for certain"
    if family.proven:
        return f"hermes' own for {family.title}, equal to the published one"
    return "the file's own, unless it lacks tools or reasoning or is another model's; then hermes' own"


def known_model(named: ModelReference, path: Path, catalogue: Catalogue) -> CatalogModel | None:
    """Return the catalogue's model of a file, by the name that the user gave or by the file's own.

    Raises:
        IntegrityError: its header cannot be read.
    """
    from hermes_cli.catalog.names import CatalogueReference  # noqa: PLC0415 - as below
    from hermes_cli.gguf.header import read_header  # noqa: PLC0415

    if isinstance(named, CatalogueReference):
        return named.model
    header = read_header(path)
    return identify((header.text("general.name") or "", path.stem), header.number, catalogue)


def identify(names: Iterable[str], number: Callable[[str], int | None], catalogue: Catalogue) -> CatalogModel | None:
    """The model of the catalogue that a file holds, by what it calls itself; its shape must be the same, too.

    Args:
        names: what it may be called: `general.name`, the name of the file.
        number: a number of its architecture by GGUF key, `block_count` and the like.
        catalogue: all models.
    """
    from hermes_cli.catalog.names import CatalogueReference, ModelNames  # noqa: PLC0415 - only for files given by path

    known = ModelNames(catalogue)
    for name in names:
        for spelled in (name, name.replace("_", "-").partition("-")[2]):  # owner_model, as some files are named
            try:
                reference = known.parse(spelled)
            except (NotFoundError, UsageError):
                continue
            if isinstance(reference, CatalogueReference) and _same_shape(reference.model, number):
                return reference.model
    return None


def _same_shape(model: CatalogModel, number: Callable[[str], int | None]) -> bool:
    a = model.architecture
    return (number("block_count"), number("embedding_length")) == (a.layers, a.embedding_length)


@dataclass(frozen=True)
class _Chooser:
    carried: FileTemplates
    model: CatalogModel | None

    @property
    def family(self) -> Family | None:
        return family_of(self.model) if self.model else None

    def by_itself(self) -> TemplateChoice:
        """Choose by what is certain."""
        family = self.family
        if family and family.proven and self._reads(family.markup):
            return self.ours(family, "equal to the published one")
        if family and not family.proven:
            if fault := next(self._faults(family), None):
                return self.ours(family, fault)
            return self.of_file(f"the published template of {family.title} is known only in part")
        if DEFAULT not in self.carried.templates:
            return self.ours(self.by_vocabulary(), "the file carries none; this goes by its vocabulary")
        if foreign := self._foreign():
            return self.ours(self.by_vocabulary(), foreign)
        return self.of_file("no other is known for this model")

    def ours(self, family: Family, why: str) -> TemplateChoice:
        """Our format for a family."""
        return TemplateChoice(OurFormat(family, self.carried.bos), f"hermes' own for {family.title}: {why}")

    def of_file(self, why: str) -> TemplateChoice:
        """The templates that the file carries."""
        if DEFAULT not in self.carried.templates:
            raise UsageError("this file carries no chat template.", hint="take hermes' own: --template model")
        more = " and `tool_use`" if TOOL_USE in self.carried.templates else ""
        return TemplateChoice(self._file_format(), f"the file's own{more}: {why}")

    def from_path(self, path: Path) -> TemplateChoice:
        """A template from the user."""
        given = FileFormat(self._compiled(read_template(path)), prompted_reasoning=self._prompted, stop=self._stop)
        return TemplateChoice(given, f"{path}: as --template asks for")

    def by_vocabulary(self) -> Family:
        """For a model that nothing else is known of: what its tokens were made for."""
        if self._reads("chatml"):
            return CHATML
        if self._reads("llama-3"):
            is_hermes_4 = HERMES_4_IDENTITY in self.carried.templates.get(DEFAULT, "")
            return HERMES_4 if is_hermes_4 else LLAMA_3
        return ALPACA

    def _faults(self, family: Family) -> Iterator[str]:
        """Why the file's template is not for a model of this family."""
        source = self.carried.templates.get(DEFAULT)
        if source is None:
            yield "the file carries none"
            return
        other = _markup(source)
        if other and other != family.markup:
            yield f"the file's is another model's, it writes {TURN_TOKENS[other][0]}"
        if foreign := self._foreign():
            yield foreign
        try:
            carried = self._file_format()
        except UsageError:
            yield "the file's is broken"
            return
        if family.tools and not carried.takes_tools:
            yield "the file's takes no tools"
        if family.reasoning == "thinking" and carried.plain.thinking is None:
            yield "the file's has no switch for reasoning"

    def _foreign(self) -> str:
        """Return the reason if the file's template writes turns that its vocabulary does not know, else nothing."""
        markup = _markup(self.carried.templates.get(DEFAULT, ""))
        others = [other for other in TURN_TOKENS if other not in {markup, "alpaca"} and self._reads(other)]
        if markup is None or self._reads(markup) or not others:
            return ""
        return f"the file's is another model's, {TURN_TOKENS[markup][0]} is no token of its vocabulary"

    def _reads(self, markup: Markup) -> bool:
        return all(map(self.carried.knows, TURN_TOKENS[markup]))

    def _file_format(self) -> FileFormat:
        templates = self.carried.templates
        tool_use = self._compiled(templates[TOOL_USE]) if TOOL_USE in templates else None
        return FileFormat(self._compiled(templates[DEFAULT]), tool_use, self._prompted, self._stop)

    def _compiled(self, source: str) -> ChatTemplate:
        return ChatTemplate(source, bos=self.carried.bos, eos=self.carried.eos)

    @property
    def _prompted(self) -> bool:
        return self.family is not None and self.family.reasoning is not None

    @property
    def _stop(self) -> tuple[str, ...]:
        return self.model.prompt.stop if self.model else ()


def _markup(source: str) -> Markup | None:
    """The markup that a template writes."""
    markups = [markup for markup, tokens in TURN_TOKENS.items() if tokens and all(token in source for token in tokens)]
    return markups[0] if len(markups) == 1 else None
