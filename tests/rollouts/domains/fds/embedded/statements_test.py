"""What a statement of the record has besides the record."""

import pytest

from rollouts.domains.fds.embedded import statements


@pytest.mark.parametrize(
    ("said", "written"),
    [
        ("it took an hour and 18 minutes", "it took 78 minutes"),
        ("it came half an hour late", "it came 30 minutes late"),
        ("it came 3 quarters of an hour late", "it came 45 minutes late"),
        ("it took an hour and a half", "it took 90 minutes"),
        ("it took 2 and a half hours", "it took 150 minutes"),
        ("it took 2 hours", "it took 2 hours"),
    ],
)
def test_parts_of_hours_are_written_as_minutes(said, written):
    assert statements.write_durations(f" {said} ") == f" {written} "


def test_about_a_number_is_that_number_when_it_is_near():
    assert statements.write_numbers(" about 50 minutes late ", {48}) == " 48 minutes late "
    assert statements.write_numbers(" about 60 minutes late ", {48}) == " 60 minutes late "
    assert statements.write_numbers(" 50 minutes late ", {48}) == " 50 minutes late "


@pytest.mark.parametrize("doubt", ["hardly", "by no means", "far from", "anything but"])
def test_doubt_is_taken_out_and_told(doubt):
    assert statements.split_reversal(f" it was {doubt} on time ") == (" it was on time ", True)
    assert statements.split_reversal(" it was on time ") == (" it was on time ", False)


OWN = {statements.stem_word(word) for word in ("delivered", "minutes", "late", "nobody", "answered", "bell")}


@pytest.mark.parametrize(
    ("text", "added"),
    [
        (" our record shows that it was delivered 48 minutes late ", False),
        (" our record shows that it was delivered 48 hours late ", True),
        (" our record shows that it was late because the courier was drunk ", True),
        (" our record shows that it was late because nobody answered the bell ", False),
        (" our record shows that it was late by a red dragon ", True),
        (" our record shows that it was late , and i am ashamed of our kitchen ", False),
        (" our record shows that it was late , all from you ", True),
    ],
)
def test_other_things_units_causes_and_blame_are_additions(text, added):
    assert statements.find_additions(text, OWN, {"late"}) == added
