"""Sources of scenarios: cursors, held-out sets, and what is said of files that are no good."""

import pathlib

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cmpo import data

RELEASED = pathlib.Path(__file__).parents[2] / "shared" / "data" / "fds" / "hard" / "train.parquet"
needs_released = pytest.mark.skipif(not RELEASED.exists(), reason=f"the authors' data is not at {RELEASED}")


def test_the_generator_goes_on_where_the_cursor_is():
    source = data.source("", "hard", seed=1)
    assert source.train(0, 20)[12:] == source.train(12, 8)
    assert source.train(0, 5) != data.source("", "hard", seed=2).train(0, 5)


def test_held_out_scenarios_are_never_dealt():
    source = data.source("", "normal", seed=1)
    dealt = {scenario.id for scenario in source.train(0, 500)}
    assert not dealt & {scenario.id for scenario in source.held_out(256, seed=1)}


@needs_released
def test_released_records_are_shuffled_by_epoch_and_held_out_ones_stay_out():
    source = data.source(str(RELEASED), "hard", seed=1)
    size = 7680 - 768
    epoch = [scenario.id for scenario in source.train(0, size)]
    following = [scenario.id for scenario in source.train(size, size)]
    assert sorted(epoch) == sorted(following) and len(set(epoch)) == size
    assert epoch != following
    held_out = {scenario.id for scenario in source.held_out(256, seed=0)}
    assert len(held_out) == 256 and not held_out & set(epoch)
    assert [scenario.id for scenario in source.train(size - 3, 6)] == epoch[-3:] + following[:3]
    with pytest.raises(ValueError, match=r"config.eval.scenarios: expected at most 768 of this file, got 769"):
        source.held_out(769, seed=0)


def test_missing_file():
    with pytest.raises(
        FileNotFoundError, match=r"config.data.path: expected a parquet file, found none at 'no.parquet'"
    ):
        data.source("no.parquet", "hard", seed=0)


def test_a_file_that_is_no_parquet(tmp_path):
    path = tmp_path / "x.parquet"
    path.write_text("hello")
    with pytest.raises(ValueError, match=r"config.data.path: .* is not a parquet file"):
        data.source(str(path), "hard", seed=0)


def test_wrong_columns(tmp_path):
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"prompt": ["a"], "other": [1]}), path)
    with pytest.raises(
        ValueError, match=r"config.data.path: .* lacks the columns \['extra_info'\]; it has \['prompt', 'other'\]"
    ):
        data.source(str(path), "hard", seed=0)


def test_a_row_of_another_kind(tmp_path):
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"prompt": ["a"], "extra_info": [{"x": 1}]}), path)
    with pytest.raises(ValueError, match=r"config.data.path: row 0 of .* is no FDS record: KeyError"):
        data.source(str(path), "hard", seed=0)


def test_unknown_difficulty():
    with pytest.raises(ValueError, match=r"config.data.difficulty: expected one of \['hard', 'normal'\], got 'easy'"):
        data.source("", "easy", seed=0)
