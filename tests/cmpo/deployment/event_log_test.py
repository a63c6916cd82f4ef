"""The log: whatever a crash leaves of it is read, and what is no ledger's is refused by file and line."""

import os
import re

import pytest

from cmpo.deployment.event_log import EventLog
from cmpo.deployment.events import Answered, Ended, Reported

EVENTS = [
    Answered(time=1.5, dialogue="d", turn=0, after="", answer="a", cost={"voucher": 1.0}, tokens=3, declined=["x"]),
    Reported(time=2.0, dialogue="d", resolved=True, rating=4.5),
    Ended(time=3.0, dialogue="d"),
]


def write(path, events):
    log = EventLog(path, print)
    assert list(log.read_events()) == []
    for event in events:
        log.append(event)
    log.close()


def read(path, say=print):
    log = EventLog(path, say)
    try:
        return list(log.read_events())
    finally:
        log.close()


def test_what_is_written_is_read_and_is_with_the_system_at_once(tmp_path):
    path = tmp_path / "new" / "ledger.jsonl"
    log = EventLog(path, print)
    for number, event in enumerate(EVENTS, start=1):
        log.append(event)
        assert path.read_bytes().count(b"\n") == number
    log.close()
    assert read(path) == EVENTS
    assert path.read_text().splitlines()[2] == '{"time":3.0,"kind":"end","dialogue":"d"}'


def test_a_last_line_that_was_cut_off_anywhere_is_named_and_removed(tmp_path):
    path, said = tmp_path / "ledger.jsonl", []
    write(path, EVENTS)
    whole = path.read_bytes()
    last = whole.rindex(b"\n", 0, -1) + 1
    for end in range(last, len(whole)):
        path.write_bytes(whole[:end])
        assert read(path, said.append) == EVENTS[:2]
        assert path.read_bytes() == whole[:last]
    assert len(said) == len(whole) - last - 1  # nothing is said where the line is missing altogether
    assert said[0] == f"{path}:3: left out a last line that was cut off: b'{{'"


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (b"{", "Invalid JSON"),
        (b"[]", "Input should be an object"),
        (b'{"time":1.0,"kind":"gift","dialogue":"d"}', "gift"),
        (b'{"time":1.0,"kind":"end"}', "end.dialogue: Field required"),
        (b'{"time":1.0,"kind":"end","dialogue":"d","more":1}', "end.more: Extra"),
        (b'{"time":"1","kind":"end","dialogue":"d"}', "end.time"),
        (b'{"time":1.0,"kind":"report","dialogue":"d","rating":NaN}', "report.rating"),
        (b"\xff\xfe", "Invalid JSON"),
    ],
)
def test_a_line_that_is_no_ledgers_is_refused_by_its_number(tmp_path, line, told):
    path = tmp_path / "ledger.jsonl"
    write(path, EVENTS[:1])
    path.write_bytes(path.read_bytes() + line + b"\n")
    with pytest.raises(ValueError, match=f"^{re.escape(str(path))}:2: expected a line of a ledger, got .*{told}"):
        read(path)


def test_one_process_writes_at_a_time(tmp_path):
    path = tmp_path / "ledger.jsonl"
    log = EventLog(path, print)
    with pytest.raises(OSError, match=r"ledger.jsonl is in use by another server; .* choose another --ledger"):
        EventLog(path, print)
    log.close()
    write(path, EVENTS)


def test_a_full_disk_leaves_no_half_of_a_line(tmp_path, monkeypatch):
    path, write_some = tmp_path / "ledger.jsonl", os.write
    log = EventLog(path, print)
    log.append(EVENTS[0])
    monkeypatch.setattr(os, "write", lambda file, data: write_some(file, data[:9]))
    with pytest.raises(OSError, match="cannot write .*ledger.jsonl: No space left"):
        log.append(EVENTS[1])
    monkeypatch.undo()
    log.append(EVENTS[2])
    log.close()
    assert read(path) == [EVENTS[0], EVENTS[2]]


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    with pytest.raises(OSError, match=f"cannot write {re.escape(str(tmp_path))}"):
        EventLog(tmp_path, print)
