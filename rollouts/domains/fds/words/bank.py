"""Reads the banks of templates, `*.txt` in this folder.

A bank is a list of sections, `== KEY` or `== KEY / ATTRIBUTE / …`, with one template a line; `#` begins a comment line.

    I want my (money back|{price} back).      alternatives in brackets, slots in braces
    ~ Nothing short of the full amount.       held-out: for shifted phrasing (or facts) only
    bt> money. now.                           for the styles named by letters, see STYLES
    ~o> I must insist.                        both

Which third of a section is held out was drawn by lot among lines of one style; of names it was chosen. A template of a
customer's words is one sentence or several, each with an end mark, so that messages can be taken apart.
"""

import functools
import itertools
import random
import re
from collections.abc import Sequence, Set
from importlib import resources
from typing import NamedTuple

STYLES = {
    "blunt and confrontational": "b",
    "terse": "t",
    "plain": "p",
    "polite": "o",
    "warm and detailed": "w",
}
"""Communication styles, least cooperative first, and their letters in the banks; non-native speakers have n."""

_LINE = re.compile(r"(~?)(?:([btpown]+)>)? ?(.+)")
_CHOICE = re.compile(r"\(([^()]*\|[^()]*)\)")
_ENDINGS = {" not": "n't", " am": "'m", " are": "'re", " will": "'ll", " would": "'d", " is": "'s"}
_SHORT_FORMS = re.compile(
    r"\b((?:[Dd]o|[Dd]oes|[Dd]id|[Ii]s|[Ww]as|[Hh]as|[Hh]ave|[Ss]hould|[Cc]ould|[Ww]ould)(?= not)|I(?= am| will| would)"
    r"|(?:[Yy]ou|[Ww]e|[Tt]hey)(?= are)|(?:[Ii]t|[Tt]hat)(?= is(?! not)))( not| am| will| would| are| is)\b(?= \w)"
)
_CANNOT, _WILL_NOT = re.compile(r"\b([Cc])an ?not\b"), re.compile(r"\b([Ww])ill not\b")
_SLOT = re.compile(r"\{(\w+)\}")


class Template(NamedTuple):
    """A line of a bank."""

    bank: str
    section: tuple[str, ...]  # key and attributes
    held: bool  # held out from training
    styles: str  # letters of the styles that it is for; "": all
    texts: tuple[str, ...]  # its phrasings, one for each combination of alternatives, in full and in short forms
    slots: frozenset[str]  # that its phrasings have between them


@functools.cache
def load_bank(name: str) -> tuple[Template, ...]:
    """Reads the bank `{name}.txt`. Raises ValueError, naming the line, for one before the first section."""
    text = resources.files(__package__).joinpath(f"{name}.txt").read_text(encoding="utf-8")
    section, templates = None, []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        if line.startswith("== "):
            section = tuple(part.strip() for part in line[3:].split(" / "))
            continue
        if section is None:
            raise ValueError(f"{name}.txt, line {number}: expected a section '== KEY' before it, got {line!r}")
        held, styles, words = _LINE.fullmatch(line).groups()
        texts = expand_choices(words)
        if styles not in ("n", "o", "ow"):  # who writes by the book has no short forms
            texts = list(dict.fromkeys([*texts, *map(shorten_forms, texts)]))
        slots = frozenset(slot for text in texts for slot in _SLOT.findall(text))
        templates.append(Template(name, section, bool(held), styles or "", tuple(texts), slots))
    return tuple(templates)


@functools.cache
def list_templates(bank: str, section: tuple[str, ...], held: bool, style: str = "") -> tuple[Template, ...]:
    """Lists the templates of one section and split that suit a style's letter; "": any style."""
    return tuple(
        template
        for template in load_bank(bank)
        if template.section == section and template.held == held and (style in template.styles or not template.styles)
    )


def expand_choices(text: str) -> list[str]:
    """Lists what a line can say: `(a|b)` is a or b. Spaces that an empty alternative leaves are closed."""
    pieces = _CHOICE.split(text)  # words, alternatives, words, …
    options = [[piece] if place % 2 == 0 else piece.split("|") for place, piece in enumerate(pieces)]
    return [re.sub(r" +(?=[ .,!?]|$)", "", "".join(chosen)) for chosen in itertools.product(*options)]


def shorten_forms(text: str) -> str:
    """Writes "I'm" for "I am", "don't" for "do not" and so on."""
    text = _WILL_NOT.sub(r"\1on't", _CANNOT.sub(r"\1an't", text))
    return _SHORT_FORMS.sub(lambda match: match[1] + _ENDINGS[match[2]], text)


def draw_phrasing(templates: Sequence[Template], slots: Set[str], rng: random.Random) -> str:
    """Draws a template that has no slots but these, and one of its phrasings. Raises ValueError if there is none."""
    suited = [template for template in templates if template.slots <= slots]
    if not suited:
        raise ValueError(f"expected a template with slots among {sorted(slots)}, got none of {len(templates)}")
    return rng.choice(rng.choice(suited).texts)
