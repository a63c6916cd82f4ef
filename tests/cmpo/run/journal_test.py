"""The journal: dialogues come back to the bit, what is torn or of other weights does not."""

import dataclasses

import numpy as np
import pytest

from cmpo.run.journal import Journal, Page
from tests.builders.dialogues import TASK, dialogue, turn
from tests.builders.runs import full_disk

HEAD = {"weights": [7, 2**32 - 1], "settings": "f0"}
OTHER = dataclasses.replace(TASK, id="hard-train-1")


def played(number):
    """A dialogue with numbers of its own, some of them no usual ones."""
    said = dataclasses.replace(
        turn(0.5, said="„Já“ \x00", ids=range(3), action="voucher", scores={"stage": 0.5, "persona": 1.0}.items()),
        logprobs=np.array([-0.0, 1e-42, -np.inf], np.float32),
        model_logprobs=np.random.default_rng(number).normal(size=3).astype(np.float32),
    )
    scenario, end = (TASK, OTHER)[number // 2], {"outcome": number / 3, "last_words": "[end:3]"}
    made = dialogue(said, turn(), **end, replaced=("judge_timeout",))
    return dataclasses.replace(made, index=number % 2, task=scenario)


def write(journal, *numbers):
    with journal.open_page(3, HEAD) as page:
        for number in numbers:
            page.add(number, played(number))


def kept(journal, step=3, head=HEAD):
    with journal.open_page(step, head) as page:
        return page.read_dialogues([TASK, OTHER], repeats=2)


def same(one, other):
    """Equal to the bit, types included."""
    one, other = (dataclasses.asdict(x) for x in (one, other))
    return repr(one) == repr(other) and all(
        a[name].tobytes() == b[name].tobytes() and a[name].dtype == b[name].dtype
        for a, b in zip(one["turns"], other["turns"], strict=True)
        for name in ("incoming_ids", "ids", "logprobs", "model_logprobs", "cost")
    )


def test_what_was_played_comes_back_to_the_bit(tmp_path):
    journal = Journal(tmp_path)
    write(journal, 2, 0)
    write(journal, 3)  # a restart goes on in the same file
    found = kept(journal)
    assert sorted(found) == [0, 2, 3] and all(same(found[number], played(number)) for number in found)


def test_failed_dialogues_are_not_kept(tmp_path):
    with Journal(tmp_path).open_page(3, HEAD) as page:
        page.add(0, dataclasses.replace(played(0), failure="user_timeout"))
    assert kept(Journal(tmp_path)) == {}


def test_other_weights_steps_and_scenarios_know_nothing_of_it(tmp_path):
    journal = Journal(tmp_path)
    write(journal, 0, 2)
    assert kept(journal, step=4) == {}
    with journal.open_page(3, HEAD) as page:
        assert list(page.read_dialogues([TASK, TASK], repeats=2)) == [0]
    for other in ({"weights": [7, 2**32 - 2]}, {"settings": "f1"}):
        assert kept(journal, head=HEAD | other) == {}
        assert kept(journal) == {}  # those of the other head have taken the page
        write(journal, 0, 2)


def test_what_follows_a_torn_or_flipped_frame_is_gone_and_can_be_played_again(tmp_path):
    journal = Journal(tmp_path)
    ends = []
    for number in range(3):
        write(journal, number)
        (path,) = (tmp_path / "dialogues").iterdir()
        ends.append(path.stat().st_size)
    whole = path.read_bytes()
    for size in (0, 5, ends[0] - 1, ends[0], ends[0] + 3, ends[1] + 40, ends[2] - 1, ends[2]):
        path.write_bytes(whole[:size])
        assert sorted(kept(journal)) == [number for number, end in enumerate(ends) if end <= size]
    for place in (ends[0], ends[0] + 20, ends[1] - 1):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        assert sorted(kept(journal)) == [0]
        write(journal, 1)
        assert sorted(kept(journal)) == [0, 1]


def test_answers_come_back_to_the_request_that_was_asked_and_to_no_other(tmp_path):
    asked = {"endpoint": "user", "model": "m", "messages": [{"role": "user", "content": "Já\u2028?"}], "seed": 3}
    others = [asked | {"seed": 4}, asked | {"endpoint": "judge"}, asked | {"messages": []}]
    with Journal(tmp_path).open_page(3, HEAD) as page:
        assert (
            page.kept(asked) == {} and page.record(asked, "\u2028 cold [end:2]", finish="stop") == "\u2028 cold [end:2]"
        )
        page.add(0, played(0))
    with Journal(tmp_path).open_page(3, HEAD) as page:
        assert (
            page.kept(asked) == {"answer": "\u2028 cold [end:2]", "finish": "stop"}
            and [page.kept(other) for other in others] == [{}] * 3
        )
        assert page.numbers == {0} and list(page.read_dialogues([TASK], repeats=2)) == [0]
    with Journal(tmp_path).open_page(3, HEAD | {"settings": "f1"}) as page:
        assert page.kept(asked)["answer"] == "\u2028 cold [end:2]" and page.numbers == set()  # whoever asks that
    with Journal(tmp_path).open_page(3, HEAD) as page:
        assert page.kept(asked)["answer"] == "\u2028 cold [end:2]" and page.numbers == set()


def test_how_dialogues_failed_is_kept_and_a_number_beyond_the_scenarios_is_nobodys(tmp_path):
    with Journal(tmp_path).open_page(3, HEAD) as page:
        page.add(1, dataclasses.replace(played(1), failure="judge_malformed"))
        page.add(3, played(3))
    with Journal(tmp_path).open_page(3, HEAD) as page:
        assert page.failures == {1: ["judge_timeout", "judge_malformed"], 3: ["judge_timeout"]}
        assert page.read_dialogues([TASK], repeats=2) == {} and list(page.read_dialogues([TASK, OTHER], 2)) == [3]


def test_a_page_that_is_removed_takes_no_other_with_it(tmp_path):
    pages = [Page(tmp_path / name, HEAD) for name in ("evaluation_a[1]", "evaluation_a[1].b", "evaluation_a1")]
    for page in pages:
        with page:
            page.add(0, played(0))
    pages[0].remove()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["evaluation_a1_0.frames", "evaluation_a[1].b_0.frames"]


def test_pages_of_all_processes_are_read_and_forgotten_by_step(tmp_path, monkeypatch):
    journal = Journal(tmp_path)
    write(journal, 0)
    monkeypatch.setattr("jax.process_index", lambda: 1)
    write(journal, 2)
    assert sorted(kept(journal)) == [0, 2]
    journal.remove_pages(2)
    assert sorted(kept(journal)) == [0, 2]
    journal.remove_pages(3)
    assert list((tmp_path / "dialogues").iterdir()) == []


def test_a_page_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "dialogues").write_text("in the way")
    with pytest.raises(OSError, match="cannot write .*/dialogues"), Journal(tmp_path).open_page(3, HEAD):
        pass


def test_a_full_disk_is_named_and_what_was_kept_stays(tmp_path):
    journal = Journal(tmp_path)
    write(journal, 0)
    told = pytest.raises(OSError, match="cannot write .*/dialogues/step_000003_0.frames: File too large")
    with told, full_disk(1024), journal.open_page(3, HEAD) as page:
        for number in range(1, 4):
            page.add(number, played(number))
    assert 0 in kept(journal) and 3 not in kept(journal)
