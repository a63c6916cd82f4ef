"""Sources of scenarios: cursors, epochs, held-out sets, processes; and what is said of files that are no good."""

import itertools

import jax
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cmpo.run.json_lines import read_lines
from cmpo.training import collecting, tasks
from rollouts.domains.fds import generator, tfds_dataset
from rollouts.domains.fds.scripted import ScriptedAgent
from tests.builders.runs import tiny
from tests.rollouts.domains.fds.released_test import write


def source(seed=1, **changes):
    data = {f"data.{name}": value for name, value in changes.items()}
    return tasks.open_source(tiny(**{"train.seed": seed}, **data))


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """Where a small file is and where its records are prepared: by seed, a source of them."""
    folder = tmp_path_factory.mktemp("recorded")
    write(folder / "x.parquet", 80)
    return lambda seed=1, **changes: source(seed, path=str(folder / "x.parquet"), dir=str(folder), **changes)


def ids(scenarios):
    return [scenario.id for scenario in scenarios]


def test_the_generator_goes_on_where_the_cursor_is():
    assert source().train(0, 20)[12:] == source().train(12, 8)
    assert source().train(0, 5) != source(seed=2).train(0, 5)


def test_phase_2_is_dealt_tasks_that_phase_1_was_not_shown(whole_run):
    workdir, _ = whole_run
    config = tiny()
    count, dealt = config.sft.dialogues, config.train.rl_steps * config.train.scenarios_per_step
    assert tasks.count_shown(config) == count and tasks.count_shown(tiny(**{"train.sft_steps": 0})) == 0
    stream = source(seed=config.train.seed).train(0, count + dealt)
    lines = read_lines(workdir / "demonstrations.jsonl")
    shown = {line["messages"][0]["content"] for line in lines}
    assert shown == {scenario.agent_prompt for scenario in stream[:count]}
    rows = [row for file in sorted((workdir / "transcripts").glob("step_*.jsonl")) for row in read_lines(file)]
    assert list(dict.fromkeys(row["task"]["id"] for row in rows)) == ids(stream[count:])


def test_words_of_recorded_scenarios_are_shifted_and_facts_are_not(recorded):
    plain, loud = recorded().held_out(3, seed=0), recorded(shift="noise=capitals").held_out(3, seed=0)
    assert ids(plain) == ids(loud) and {str(scenario.shift) for scenario in loud} == {"noise=capitals"}
    assert [scenario.order for scenario in plain] == [scenario.order for scenario in loud]
    with pytest.raises(ValueError, match="config.data.shift: expected none, phrasing or noise of recorded scenarios"):
        recorded(shift="all")


def test_orders_of_held_out_scenarios_are_never_dealt():
    """By the generator: whatever the seeds. Drawn without care, about 7 in 100 would be."""
    dealt = {scenario.order.signals for scenario in source(difficulty="normal").train(0, 4000)}
    for seed in (0, 1, 1000):
        held_out = source(seed=7, difficulty="normal").held_out(256, seed)
        assert len(set(ids(held_out))) == 256 and not dealt & {scenario.order.signals for scenario in held_out}


def test_records_are_shuffled_anew_each_epoch_and_held_out_ones_stay_out(recorded):
    everything, held_out = recorded().train(0, 80), recorded().held_out(1, seed=0)
    size = len(set(ids(everything)))
    test = set(ids(recorded().held_out(80 - size, seed=0)))
    assert 60 < size < 80 and len(test) == 80 - size and ids(held_out)[0] in test
    epochs = [ids(recorded().train(size * number, size)) for number in range(3)]
    assert all(len(set(epoch)) == size and not test & set(epoch) for epoch in epochs)
    assert len(set(map(tuple, epochs))) == 3
    assert ids(recorded(seed=2).train(0, size)) != epochs[0]
    assert ids(recorded(seed=2).held_out(5, seed=3)) == ids(recorded().held_out(5, seed=3))
    orders = [{scenario.order.signals for scenario in part} for part in (everything, recorded().held_out(80 - size, 0))]
    assert not orders[0] & orders[1]
    with pytest.raises(ValueError, match=rf"config.eval.scenarios: expected at most {80 - size} of this data, got 81"):
        recorded().held_out(81, seed=0)


@pytest.mark.parametrize("stops", [(7,), (1, 2, 3, 75), (40, 80, 200)])
def test_a_source_opened_anew_at_a_cursor_goes_on_as_if_it_had_never_stopped(recorded, stops):
    """In mid-epoch and over its end."""
    expected = list(recorded().train(0, 240))
    parts = [recorded().train(start, stop - start) for start, stop in itertools.pairwise((0, *stops, 240))]
    assert list(itertools.chain(*parts)) == expected
    assert list(map(len, parts)) == [stop - start for start, stop in itertools.pairwise((0, *stops, 240))]


@pytest.mark.parametrize("processes", [1, 3, 5])
def test_processes_play_everything_once_and_read_only_what_they_play(recorded, processes, monkeypatch):
    scenarios, expected, played = recorded().train(76, 11), list(recorded().train(76, 11)), []
    read, from_example = [], tfds_dataset.from_example
    monkeypatch.setattr(tfds_dataset, "from_example", lambda example: read.append(1) or from_example(example))
    monkeypatch.setattr(jax, "process_count", lambda: processes)
    monkeypatch.setattr(collecting.processes, "run_everywhere", lambda work: [work()])  # without the others' part
    config = tiny(**{"episode.max_turns": 1})
    for number in range(processes):
        read.clear()
        monkeypatch.setattr(jax, "process_index", lambda number=number: number)
        dialogues = collecting.collect_dialogues(
            config, collecting.serve_agent(ScriptedAgent("never")), scenarios, repeats=2, seed=0
        )
        assert len(read) == len(dialogues) / 2 <= 11 / processes + 1
        played += [dialogue.task for dialogue in dialogues]
    assert played == [scenario for scenario in expected for _ in range(2)]


def test_fixed_records_of_the_generator(tmp_path, monkeypatch):
    monkeypatch.setitem(tfds_dataset.SIZES, "hard", {"train": 20, "test": 8})
    fixed = source(endless=False, dir=str(tmp_path))
    assert sorted(ids(fixed.train(0, 20))) == sorted(f"hard-train-0-{number}" for number in range(20))
    assert sorted(ids(fixed.held_out(8, seed=0))) == [f"hard-test-0-{number}" for number in range(8)]
    assert set(fixed.train(0, 20)) == set(itertools.islice(generator.deal_scenarios(0), 20))


def test_missing_file():
    with pytest.raises(
        FileNotFoundError, match=r"config.data.path: expected a parquet file, found none at 'no.parquet'"
    ):
        source(path="no.parquet")


def test_a_file_that_is_no_parquet(tmp_path):
    path = tmp_path / "x.parquet"
    path.write_text("hello")
    with pytest.raises(ValueError, match=r"config.data.path: .* is not a parquet file"):
        source(path=str(path), dir=str(tmp_path))


def test_a_damaged_file(tmp_path):
    path = write(tmp_path / "x.parquet", 40)
    content = bytearray(path.read_bytes())
    content[40:400] = bytes(360)
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"config.data.path: .* is not a parquet file, or a damaged one"):
        source(path=str(path), dir=str(tmp_path))


def test_a_file_with_a_name_that_is_no_text(tmp_path):
    path = write(tmp_path / "x.parquet", 40)
    path.write_bytes(path.read_bytes().replace(b"element", b"ele\xffent"))
    with pytest.raises(
        ValueError, match=r"config.data.path: .* is not a parquet file, or a damaged one: 'utf-8' codec"
    ):
        source(path=str(path), dir=str(tmp_path))


def test_wrong_columns(tmp_path):
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"prompt": ["a"], "other": [1]}), path)
    with pytest.raises(
        ValueError, match=r"config.data.path: .* lacks the columns \['extra_info'\]; it has \['prompt', 'other'\]"
    ):
        source(path=str(path), dir=str(tmp_path))


def test_a_row_of_another_kind(tmp_path):
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"prompt": ["a"], "extra_info": [{"x": 1}]}), path)
    with pytest.raises(
        ValueError, match=r"config.data.path: row 0 of .* is not an FDS record: extra_info.interaction_kwargs.user"
    ):
        source(path=str(path), dir=str(tmp_path))
    assert not list(tmp_path.glob("fds/released*/*"))  # nothing half-made is left


def test_too_few_records(tmp_path):
    with pytest.raises(ValueError, match=r"config.data.path: no order in .* falls to the split 'test'"):
        source(path=str(write(tmp_path / "x.parquet", 1)), dir=str(tmp_path))


@pytest.mark.parametrize("endless", [True, False])
def test_unknown_difficulty(endless):
    with pytest.raises(ValueError, match=r"config.data.difficulty: expected one of \['hard', 'normal'\], got 'easy'"):
        source(difficulty="easy", endless=endless)
