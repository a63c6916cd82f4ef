"""The tensorflow-datasets builder `fds`: fixed records in array_record files, written and read without TensorFlow.

``tfds.data_source("fds/hard", split="train")`` works once this module is imported; a run uses `prepare_records` and
`PreparedRecords`.
"""

import contextlib
import dataclasses
import hashlib
import io
import itertools
import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import grain
import numpy as np
import tensorflow_datasets as tfds
from absl import logging

from rollouts.domains.fds import generator, released
from rollouts.domains.fds.scenario import DEMANDS, Item, Order, Persona, Record, Scenario
from rollouts.domains.fds.shift import NO_SHIFT, Shift
from rollouts.seeds import fold

SIZES = {"hard": {"train": 7680, "test": 256}, "normal": {"train": 7424, "test": 256}}
"""How many records each split of the generator's configs has; as many as the paper's splits."""

_SUPPORT = {False: "contradicts", True: "supports", None: "silent"}  # what the platform's record says of the claim
_ORDER_TEXTS = ("merchant", "ordered", "delivered", "complaint", "tag", "courier")
_TRAITS = tuple(field.name for field in dataclasses.fields(Persona) if field.name != "level")


@dataclasses.dataclass(eq=False, kw_only=True)
class FdsConfig(tfds.core.BuilderConfig):
    """Where the records come from."""

    difficulty: str = ""  # a key of SIZES: the generator, with seed 0
    path: str = ""  # or the authors' parquet file


def released_config(path: str) -> FdsConfig:
    """Returns the config for a parquet file, named by its hash. Raises FileNotFoundError, naming config.data.path."""
    if not pathlib.Path(path).is_file():
        raise FileNotFoundError(f"config.data.path: expected a parquet file, found none at {path!r}")
    digest = hashlib.blake2b(pathlib.Path(path).read_bytes(), digest_size=16).hexdigest()
    return FdsConfig(name=f"released_{digest}", path=path, description="Released records; a tenth of the orders: test.")


class Fds(tfds.core.GeneratorBasedBuilder):
    """Food-delivery after-sales disputes: who complains, about which order, wanting what."""

    VERSION = tfds.core.Version("2.0.0")  # raise it whenever the records change, or how they are read
    RELEASE_NOTES = {
        "1.0.0": "The first.",
        "2.0.0": "Items with prices, times, records with numbers, tags that may be wrong, what a voucher is worth.",
    }
    BUILDER_CONFIGS = [
        FdsConfig(name=name, difficulty=name, description=f"Generated, the method's mix `{name}`.") for name in SIZES
    ]

    def __init__(self, *, file_format: str | None = None, **options):
        # The default of tensorflow-datasets, tfrecord, needs TensorFlow.
        super().__init__(file_format=file_format or "array_record", **options)

    def _info(self) -> tfds.core.DatasetInfo:
        text = tfds.features.Text()
        features = tfds.features.FeaturesDict(
            {
                "id": text,
                "persona": {"level": np.int32, **dict.fromkeys(_TRAITS, text)},
                "demand": tfds.features.ClassLabel(names=DEMANDS),
                "order": {
                    **dict.fromkeys(_ORDER_TEXTS, text),
                    "items": tfds.features.Sequence({"name": text, "quantity": np.int32, "price": np.int32}),
                    "record": {
                        "kind": text,
                        "supports": tfds.features.ClassLabel(names=_SUPPORT.values()),
                        "numbers": tfds.features.Sequence(np.int32),
                        "text": text,
                    },
                    "signals": tfds.features.Sequence({"name": text, "value": text}),
                },
                "agent_prompt": text,
                "worth": np.int32,
                "honest": np.bool_,
            }
        )
        return tfds.core.DatasetInfo(
            builder=self, description=type(self).__doc__, features=features, disable_shuffling=True
        )

    def _split_generators(self, dl_manager) -> dict[str, Iterator[tuple[int, dict]]]:
        config = self.builder_config
        splits = _read_splits(config.path) if config.path else _generate_splits(config.difficulty)
        return {split: self._generate_examples(scenarios) for split, scenarios in splits.items()}

    def _generate_examples(self, scenarios: Iterable[Scenario]) -> Iterator[tuple[int, dict]]:
        return enumerate(map(to_example, scenarios))


def prepare_records(difficulty: str, path: str = "", directory: str = "") -> pathlib.Path:
    """Makes sure that the records of `path`, or of the generator, are on disk; returns where they are.

    Args:
      difficulty: the generator's mix, a key of SIZES; ignored if there is a `path`.
      path: the authors' parquet file; "": the generator.
      directory: where all datasets are; "": tensorflow-datasets' own, $TFDS_DATA_DIR or ~/tensorflow_datasets.

    Raises:
      FileNotFoundError, ValueError: no or unknown source, named by its config field; or files that another version of
        this program left.
    """
    if not path and difficulty not in SIZES:
        raise ValueError(f"config.data.difficulty: expected one of {sorted(SIZES)}, got {difficulty!r}")
    options = {"config": released_config(path) if path else difficulty, "data_dir": directory or None}
    with _silence_tfds():
        builder = Fds(**options)
        place = pathlib.Path(builder.data_dir)
        found = place.exists()  # it gets its name when it is complete
        if not found:
            try:
                builder.download_and_prepare()
            except OSError:
                if not place.exists():  # else another run was faster, and its files are as good
                    raise
    if not found:
        print(f"{place}: prepared")
        return place
    first = next(released.read_records(path) if path else generator.deal_scenarios(0, difficulty=difficulty))
    if PreparedRecords(place, generator.split_of(first.order))[0] != first:
        raise ValueError(f"{place} was prepared by another version of this program; remove it to have it made anew")
    return place


@contextlib.contextmanager
def _silence_tfds() -> Iterator[None]:
    """Hides what tensorflow-datasets prints about downloads and about configurations that it does not know."""
    before = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.set_verbosity(before)


class PreparedRecords(Sequence[Scenario]):
    """One split, "train" or "test", of a prepared dataset; a record is read when it is asked for.

    Raises ValueError for another split, and for files that are missing or damaged.
    """

    def __init__(self, directory: pathlib.Path, split: str):
        if split not in ("train", "test"):
            raise ValueError(f"expected the split 'train' or 'test', got {split!r}")
        self._place = f"{directory}, split {split!r}"
        with self._raise_as_damage("cannot be opened"):
            self._examples = tfds.builder_from_directory(directory).as_data_source(split)

    def __len__(self) -> int:
        return len(self._examples)

    def __getitem__(self, index: int) -> Scenario:
        """Record `index`. Raises IndexError beyond the last one, ValueError if the files are damaged."""
        number = range(len(self))[index]
        with self._raise_as_damage(f"record {number} cannot be read"):
            return from_example(self._examples[number])

    @contextlib.contextmanager
    def _raise_as_damage(self, what: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # of many kinds, from protobuf's to array_record's RuntimeError
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise ValueError(f"{self._place}: {what} ({reason}); remove the directory to have it made anew") from None


class Recorded:
    """A `rollouts.domain.TaskSource`: the records in `directory`, shuffled anew each epoch.

    A record is read when it is asked for, so a process reads only what it plays. Records have their facts; the words of
    held-out ones may be shifted. Raises ValueError, naming config.data.shift, for a shift of facts.
    """

    def __init__(self, directory: pathlib.Path, seed: int, shift: Shift = NO_SHIFT):
        if shift.facts:
            raise ValueError(
                f"config.data.shift: expected none, phrasing or noise of recorded scenarios, got '{shift}'; unseen "
                "facts come with config.data.endless"
            )
        self._shift = shift
        train, self._test = PreparedRecords(directory, "train"), PreparedRecords(directory, "test")
        self._train = grain.MapDataset.source(train).shuffle(seed=fold(seed, "shuffle")).repeat()

    def train(self, cursor: int, count: int) -> Sequence[Scenario]:
        """See TaskSource."""
        return self._train[cursor : cursor + count]

    def held_out(self, count: int, seed: int) -> Sequence[Scenario]:
        """See TaskSource. Raises ValueError if the dataset holds fewer."""
        if count > len(self._test):
            raise ValueError(f"config.eval.scenarios: expected at most {len(self._test)} of this data, got {count}")
        chosen = grain.MapDataset.source(self._test).shuffle(seed=fold(seed, "held out"))[:count]
        return [dataclasses.replace(scenario, shift=self._shift) for scenario in chosen]


def to_example(scenario: Scenario) -> dict[str, Any]:
    """A scenario as the builder's features. A shift is not kept: none is prepared."""
    order, record = vars(scenario.order), scenario.order.record._asdict()
    facts = {
        "items": [item._asdict() for item in scenario.order.items],
        "record": {**record, "supports": _SUPPORT[record["supports"]]},
        "signals": [{"name": name, "value": value} for name, value in scenario.order.signals],
    }
    fields = {name: value for name, value in vars(scenario).items() if name != "shift"}
    return {**fields, "persona": vars(scenario.persona), "order": {**order, **facts}}


def from_example(example: Mapping[str, Any]) -> Scenario:
    """The scenario that `to_example` was given, from what a data source yields: bytes and numpy scalars."""
    persona, order = example["persona"], example["order"]
    items, record, signals = order["items"], order["record"], order["signals"]
    return Scenario(
        id=example["id"].decode(),
        persona=Persona(level=int(persona["level"]), **{name: persona[name].decode() for name in _TRAITS}),
        demand=DEMANDS[example["demand"]],
        order=Order(
            **{name: order[name].decode() for name in _ORDER_TEXTS},
            items=tuple(
                Item(name.decode(), int(quantity), int(price))
                for name, quantity, price in zip(items["name"], items["quantity"], items["price"], strict=True)
            ),
            record=Record(
                record["kind"].decode(),
                tuple(_SUPPORT)[record["supports"]],
                tuple(map(int, record["numbers"])),
                record["text"].decode(),
            ),
            signals=tuple(
                (name.decode(), value.decode()) for name, value in zip(signals["name"], signals["value"], strict=True)
            ),
        ),
        agent_prompt=example["agent_prompt"].decode(),
        worth=int(example["worth"]),
        honest=bool(example["honest"]),
    )


def _generate_splits(difficulty: str) -> dict[str, Iterator[Scenario]]:
    return {
        split: itertools.islice(generator.deal_scenarios(0, difficulty=difficulty, split=split), count)
        for split, count in SIZES[difficulty].items()
    }


def _read_splits(path: str) -> dict[str, list[Scenario]]:
    splits = {"train": [], "test": []}
    for scenario in released.read_records(path):
        splits[generator.split_of(scenario.order)].append(scenario)
    for split, scenarios in splits.items():
        if not scenarios:
            raise ValueError(f"config.data.path: no order in {path!r} falls to the split {split!r}; there are too few")
    return splits
