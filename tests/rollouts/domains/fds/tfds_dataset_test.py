"""The builder of tensorflow-datasets: what goes in comes out, without TensorFlow; files stale, lost or damaged."""

import dataclasses
import itertools
import pathlib
import subprocess
import sys

import pytest
import tensorflow_datasets as tfds

from rollouts.domains.fds import generator, released, tfds_dataset
from rollouts.domains.fds.scenario import Item, Order, Persona, Record, Scenario
from tests.builders.runs import ROOT
from tests.rollouts.domains.fds.released_test import write

SMALL = {"hard": {"train": 30, "test": 10}, "normal": {"train": 20, "test": 10}}


@pytest.fixture
def small(monkeypatch):
    for difficulty, sizes in SMALL.items():
        monkeypatch.setitem(tfds_dataset.SIZES, difficulty, sizes)


@pytest.mark.parametrize("difficulty", SMALL)
def test_the_generators_records_come_back_in_their_order(difficulty, small, tmp_path, capsys):
    place = tfds_dataset.prepare_records(difficulty, directory=str(tmp_path))
    assert place == tmp_path / "fds" / difficulty / "2.0.0"
    assert capsys.readouterr().out == f"{place}: prepared\n"
    for split, count in SMALL[difficulty].items():
        dealt = list(itertools.islice(generator.deal_scenarios(0, difficulty=difficulty, split=split), count))
        records = tfds_dataset.PreparedRecords(place, split)
        assert list(records) == dealt and len(records) == count and records[-1] == dealt[-1]
        assert {scenario.order.supported for scenario in dealt} == {True, False, None}
    assert (
        tfds_dataset.prepare_records(difficulty, directory=str(tmp_path)) == place
    )  # is there: nothing is done, or said
    assert capsys.readouterr() == ("", "")


def test_the_methods_sizes():
    """The counts of levels are those of whole blocks; docs and method say 7,680, 7,424 and 256."""
    for difficulty, sizes in tfds_dataset.SIZES.items():
        for split, count in sizes.items():
            assert count % sum(generator.LEVEL_COUNTS[difficulty, split]) == 0
    assert tfds_dataset.SIZES == {"hard": {"train": 7680, "test": 256}, "normal": {"train": 7424, "test": 256}}


def test_released_records_come_back_parted_by_order(tmp_path):
    path = write(tmp_path / "x.parquet", 100)
    place = tfds_dataset.prepare_records("", str(path), str(tmp_path))
    parts = {split: list(tfds_dataset.PreparedRecords(place, split)) for split in ("train", "test")}
    for split, scenarios in parts.items():
        assert scenarios == [
            each for each in released.read_records(str(path)) if generator.split_of(each.order) == split
        ]
    assert len(parts["train"]) + len(parts["test"]) == 100 and len(parts["test"]) > 0


def test_another_file_at_the_same_path_is_another_dataset(tmp_path):
    path = str(tmp_path / "x.parquet")
    places = [
        tfds_dataset.prepare_records("", str(write(tmp_path / "x.parquet", count)), str(tmp_path))
        for count in (60, 80, 60)
    ]
    assert places[0] == places[2] != places[1]
    assert sum(len(tfds_dataset.PreparedRecords(places[1], split)) for split in ("train", "test")) == 80
    assert tfds_dataset.released_config(path).name == places[0].parent.name


@pytest.mark.parametrize("supported", [True, False, None])
def test_every_field_comes_back(supported, tmp_path):
    signals = (("é", ""), ("你好\n", "- a: b"))
    items, record = (Item("Café", 2, 0), Item("茶", 1, 1990)), Record("late_minutes", supported, (48, 7), "«»\x00")
    order = Order(items, "", "18:05", "", "late delivery", "missing items", record, "Soon.", signals)
    made = Scenario("", Persona(3, "a", "b\t", "", "🙂"), "feedback_focus", order, "  two\nlines ", 30, False)
    bare = dataclasses.replace(order, items=(), record=Record("", supported, (), ""), signals=())
    scenarios = [made, dataclasses.replace(made, order=bare, worth=0, honest=True)]
    features = tfds_dataset.Fds(config="hard", data_dir=tmp_path).info.features
    for scenario in scenarios:
        written = features.serialize_example(features.encode_example(tfds_dataset.to_example(scenario)))
        assert tfds_dataset.from_example(features.deserialize_example_np(written)) == scenario


def test_tensorflow_is_needed_neither_to_write_nor_to_read(tmp_path):
    program = f"""
import sys
import tensorflow_datasets as tfds
from rollouts.domains.fds import tfds_dataset
tfds_dataset.SIZES["hard"] = {SMALL["hard"]}
source = tfds.data_source("fds/hard", split="train", data_dir={str(tmp_path)!r})
print(len(source), source[0]["id"], "tensorflow" in sys.modules)
"""
    ended = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert ended.stdout.splitlines()[-1] == "30 b'hard-train-0-0' False", ended.stderr


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda file: file.unlink(), "record 0 cannot be read .*No such file"),
        (lambda file: file.write_bytes(b""), "record 0 cannot be read"),
        (lambda file: file.write_bytes(file.read_bytes()[:40000]), "record 0 cannot be read"),
        (lambda file: file.write_bytes(file.read_bytes()[:500] + bytes(file.stat().st_size - 500)), "record 0 cannot"),
        (lambda file: file.with_name("features.json").unlink(), "cannot be opened"),
        (lambda file: file.with_name("dataset_info.json").unlink(), "cannot be opened"),
        (lambda file: file.with_name("dataset_info.json").write_text("{"), "cannot be opened .*JSON"),
    ],
)
def test_damage_is_told_with_the_way_out(damage, message, small, tmp_path):
    place = tfds_dataset.prepare_records("hard", directory=str(tmp_path))
    damage(place / "fds-train.array_record-00000-of-00001")
    with pytest.raises(ValueError, match=rf"{place}, split 'train': {message}.*; remove the directory to have it made"):
        tfds_dataset.PreparedRecords(place, "train")[0]


def test_what_does_not_exist_is_refused(small, tmp_path):
    place = tfds_dataset.prepare_records("hard", directory=str(tmp_path))
    with pytest.raises(ValueError, match="expected the split 'train' or 'test', got 'dev'"):
        tfds_dataset.PreparedRecords(place, "dev")
    with pytest.raises(IndexError):
        tfds_dataset.PreparedRecords(place, "train")[30]
    with pytest.raises(ValueError, match="config.data.difficulty: expected one of .*, got 'easy'"):
        tfds_dataset.prepare_records("easy", directory=str(tmp_path))
    with pytest.raises(ValueError, match="BuilderConfig easy not found"):
        tfds.builder("fds/easy", data_dir=tmp_path)


def test_records_of_another_version_are_refused(small, tmp_path, monkeypatch):
    path, draw = str(write(tmp_path / "x.parquet", 60)), generator.draw_order
    monkeypatch.setattr(generator, "draw_order", lambda *drawn: dataclasses.replace(draw(*drawn), courier="Else."))
    monkeypatch.setitem(released._COMPLAINTS, "Food temperature issue", "late delivery")
    places = [tfds_dataset.prepare_records("hard", name, str(tmp_path)) for name in ("", path)]
    monkeypatch.undo()
    for place, name in zip(places, ("", path), strict=True):
        with pytest.raises(ValueError, match=rf"{place} was prepared by another version of this program; remove it"):
            tfds_dataset.prepare_records("hard", name, str(tmp_path))


def test_a_run_that_was_faster_is_no_error(small, tmp_path, monkeypatch):
    prepare = tfds_dataset.Fds.download_and_prepare

    def late(self):
        prepare(tfds_dataset.Fds(config="hard", data_dir=tmp_path))
        pathlib.Path(self.data_dir, "mark").touch()
        prepare(tfds_dataset.Fds(config="hard", data_dir=tmp_path / "elsewhere"))
        pathlib.Path(tmp_path / "elsewhere" / "fds" / "hard" / "2.0.0").rename(self.data_dir)  # as the builder does

    monkeypatch.setattr(tfds_dataset.Fds, "download_and_prepare", late)
    place = tfds_dataset.prepare_records("hard", directory=str(tmp_path))
    assert (place / "mark").exists() and len(tfds_dataset.PreparedRecords(place, "train")) == 30


def test_a_directory_that_cannot_be_written(small, tmp_path):
    (tmp_path / "fds").write_text("a file")
    with pytest.raises(OSError, match=str(tmp_path / "fds")):
        tfds_dataset.prepare_records("hard", directory=str(tmp_path))
