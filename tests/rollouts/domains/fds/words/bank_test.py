"""The banks of templates: their format, and that every section has enough for every style, in both splits."""

import collections
import random

import pytest

from rollouts.domains.fds.embedded.signals import REACTIONS, STANCES
from rollouts.domains.fds.scenario import COMPLAINTS
from rollouts.domains.fds.words import bank, decoding

SLOTS = {"item", "merchant", "ordered", "delivered", "minutes", "price", "count"}
STYLES = (*bank.STYLES.values(), "n")
SECTIONS = [
    *(("openings", (complaint, heat)) for complaint in COMPLAINTS for heat in "012"),
    *(("details", (complaint,)) for complaint in COMPLAINTS),
    *(("pictures", (complaint,)) for complaint in COMPLAINTS),
    *(("stances", (stance,)) for stance in STANCES),
    *(("hints", (hint,)) for hint in "1234"),
    *(("wants", (wants,)) for wants in ("steps", "short")),
    *(("reactions", (reaction,)) for reaction in REACTIONS),
    *(("reactions", (reaction, heat)) for reaction in REACTIONS for heat in "12"),
    *(("heat", (heat,)) for heat in "12"),
    *(("farewells", (rating,)) for rating in "12345"),
    ("walkouts", ("quit",)),
    *(("fillers", (kind,)) for kind in ("opening", "answer")),
    ("leads", ("lead",)),
]


@pytest.mark.parametrize(
    "text, phrasings",
    [
        ("No choice (at all).", ["No choice (at all)."]),
        ("I (want|need) it.", ["I want it.", "I need it."]),
        ("It is (very|) late (now|).", ["It is very late now.", "It is very late.", "It is late now.", "It is late."]),
        ("{item} (|again).", ["{item}.", "{item} again."]),
    ],
)  # fmt: skip
def test_alternatives(text, phrasings):
    assert bank.expand_choices(text) == phrasings


@pytest.mark.parametrize(
    "text, short",
    [
        ("I am sure that you are right.", "I'm sure that you're right."),
        ("I do not know, it is cold.", "I don't know, it's cold."),
        ("That is not what I am. You cannot, I can not.", "That isn't what I am. You can't, I can't."),
        ("I will not go, I will stay.", "I won't go, I'll stay."),
        ("You see how it is.", "You see how it is."),
        ("That this island is nice.", "That this island is nice."),
    ],
)
def test_short_forms(text, short):
    assert bank.shorten_forms(text) == short


def test_sections_marks_and_styles():
    (hi,) = [template for template in bank.load_bank("fillers") if "support?" in template.texts]
    assert hi == bank.Template("fillers", ("opening",), True, "t", ("support?",), frozenset())
    assert bank.load_bank("openings")[0].section == ("late delivery", "0")


def test_a_line_before_the_first_section_is_refused(monkeypatch, tmp_path):
    (tmp_path / "odd.txt").write_text("# fine\nNo section.\n")
    monkeypatch.setattr(bank.resources, "files", lambda package: tmp_path)
    with pytest.raises(ValueError, match=r"odd.txt, line 2: expected a section '== KEY' before it, got 'No section.'"):
        bank.load_bank("odd")


@pytest.mark.parametrize("held", [False, True])
@pytest.mark.parametrize("name, section", SECTIONS)
def test_every_section_has_words_for_every_style_in_both_splits(name, section, held):
    for style in STYLES:
        found = bank.list_templates(name, section, held, style)
        least = 1 if name in ("reactions", "fillers", "pictures") else 2
        assert len([template for template in found if not template.slots - {"item", "merchant"}]) >= least
        assert all(template.held == held for template in found)


def test_the_banks_have_no_other_sections():
    known = collections.defaultdict(set)
    for name, section in SECTIONS:
        known[name].add(section)
    for name, sections in known.items():
        assert {template.section for template in bank.load_bank(name)} == sections


def test_a_third_is_held_out_and_no_text_is_in_both_splits():
    names = (*decoding.BANKS, "pictures", "records", "courier", "names", "leads")
    templates = [template for name in names for template in bank.load_bank(name)]
    held = sum(template.held for template in templates)
    assert len(templates) > 1850 and held / len(templates) == pytest.approx(1 / 3, abs=0.03)
    texts = [
        {(template.bank, text.lower()) for template in templates if template.held == held for text in template.texts}
        for held in (False, True)
    ]
    assert not texts[0] & texts[1]


def test_slots_are_known_and_every_sentence_has_an_end_mark():
    for name in (*decoding.BANKS, "pictures"):
        for template in bank.load_bank(name):
            assert template.slots <= SLOTS, template
            assert name == "pictures" or all(text[-1] in ".!?" for text in template.texts), template


def test_drawing_keeps_to_the_slots_that_are_known():
    templates = bank.load_bank("openings")
    drawn = {bank.draw_phrasing(templates, {"item"}, random.Random(seed)) for seed in range(300)}
    assert len(drawn) > 100 and not any("{price}" in text or "{minutes}" in text for text in drawn)
    with pytest.raises(ValueError, match=r"expected a template with slots among \[\], got none of"):
        bank.draw_phrasing([template for template in templates if template.slots], set(), random.Random(0))
