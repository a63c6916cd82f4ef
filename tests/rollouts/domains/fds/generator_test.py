"""The gym's scenarios: exact mixes, seeds, balance of small windows, and records that say what they are said to say."""

import collections
import itertools
import random
import statistics

import pytest

from rollouts.domains.fds import generator, turn_format
from rollouts.domains.fds.embedded import reading
from rollouts.domains.fds.scenario import DEMANDS

MIXES = [  # the method's table; train counts are per block of 128 and times 60 (hard) or 58 (normal) the released ones
    ("hard", "train", 128, 60, (720, 2400, 1920, 1920, 720)),
    ("normal", "train", 128, 58, (696, 696, 2378, 2204, 1450)),
    ("hard", "test", 256, 1, (25, 78, 64, 64, 25)),
    ("normal", "test", 256, 1, (25, 25, 79, 76, 51)),
]


def deal(count, *, seed=3, **options):
    return list(itertools.islice(generator.deal_scenarios(seed, **options), count))


@pytest.mark.parametrize("difficulty, split, size, blocks, expected", MIXES)
def test_every_block_has_the_methods_levels_and_its_demands_within_rounding(difficulty, split, size, blocks, expected):
    dealt = deal(2 * size, difficulty=difficulty, split=split)
    halves = (dealt[:size], dealt[size:])
    for block in halves:
        levels = collections.Counter(scenario.persona.level for scenario in block)
        assert tuple(levels[level] * blocks for level in range(1, 6)) == expected
        cells = collections.Counter((scenario.persona.level, scenario.demand) for scenario in block)
        for level, demand in itertools.product(range(1, 6), DEMANDS):
            wanted = levels[level] * generator.DEMAND_WEIGHTS[demand][level - 1]
            assert abs(cells[level, demand] - wanted) < 1, (level, demand)
    first, second = ([(scenario.persona.level, scenario.demand) for scenario in block] for block in halves)
    assert first != second


def test_the_demand_weights_are_the_methods_and_hold_on_average():
    assert [generator.DEMAND_WEIGHTS[demand] for demand in DEMANDS] == [
        (0.70, 0.60, 0.40, 0.40, 0.50),
        (0.15, 0.10, 0.15, 0.15, 0.20),
        (0.10, 0.15, 0.20, 0.20, 0.10),
        (0.05, 0.15, 0.25, 0.25, 0.20),
    ]
    counts = generator.LEVEL_COUNTS["hard", "train"]
    cells = collections.Counter(
        cell for seed in range(400) for cell in generator._deal_block(counts, random.Random(seed))
    )
    for (level, demand), count in cells.items():
        assert count / 400 == pytest.approx(counts[level - 1] * generator.DEMAND_WEIGHTS[demand][level - 1], abs=0.15)


def test_the_same_seed_deals_the_same_and_another_does_not():
    assert deal(20) == deal(20)
    assert deal(20) != deal(20, seed=4)
    assert deal(20) != deal(20, split="test")
    assert deal(20) != deal(20, difficulty="normal")
    assert len({scenario.id for scenario in deal(300)}) == 300


@pytest.mark.parametrize("split, start", [("train", 1), ("train", 127), ("train", 128), ("train", 300), ("test", 250)])
def test_start_equals_skipping(split, start):
    assert deal(12, split=split, start=start) == deal(start + 12, split=split)[start:]


@pytest.mark.parametrize("difficulty, split", generator.LEVEL_COUNTS)
def test_windows_of_16_see_about_the_same_mix(difficulty, split):
    """Counted against the same blocks in random order, whose windows vary more."""
    counts = generator.LEVEL_COUNTS[difficulty, split]
    rng = random.Random(0)
    for holds, share in ((lambda cell: cell[1] == "refund_insistence", 0.5), (lambda cell: cell[0] <= 2, 0.9)):
        ours, shuffled = [], []
        for seed in range(30):
            block = generator._deal_block(counts, random.Random(seed))
            for cells, found in ((block, ours), (rng.sample(block, len(block)), shuffled)):
                found += [sum(map(holds, cells[place : place + 16])) for place in range(0, len(cells), 16)]
        assert statistics.mean(ours) == statistics.mean(shuffled)
        assert statistics.pstdev(ours) < share * statistics.pstdev(shuffled)
    dealt = [scenario.demand for scenario in deal(sum(counts), difficulty=difficulty, split=split)]
    for place in range(len(dealt) - 15):
        for demand in DEMANDS:
            expected = 16 * dealt.count(demand) / len(dealt)
            assert abs(dealt[place : place + 16].count(demand) - expected) < 2


def test_records_say_what_they_are_said_to_say():
    dealt = deal(512)
    stances = collections.Counter()
    for scenario in dealt:
        order = scenario.order
        _, supporting, contradicting = generator.COMPLAINTS[order.complaint]
        says = {True: supporting, False: contradicting, None: "no abnormal report"}
        assert order.record == says[order.supported]
        stances[order.supported] += 1
        assert dict(order.signals) == {
            "items": order.items,
            "merchant": order.merchant,
            "courier": dict(order.signals)["courier"],
            "record": order.record,
            "tag": order.complaint,
        }
    assert {scenario.order.complaint for scenario in dealt} == set(generator.COMPLAINTS) and len(
        generator.COMPLAINTS
    ) == 6
    for stance, share in ((True, 0.5), (False, 0.3), (None, 0.2)):
        assert stances[stance] / 512 == pytest.approx(share, abs=0.07)


def test_no_record_fits_two_stances_or_two_complaints():
    records = [record for _, *pair in generator.COMPLAINTS.values() for record in pair] + ["no abnormal report"]
    assert len(set(records)) == len(records)


def test_traits_lean_towards_the_level():
    by_level = collections.defaultdict(list)
    for scenario in deal(256):
        for trait, styles in generator._TRAITS.items():
            place = styles.index(getattr(scenario.persona, trait)) + 1
            assert abs(place - scenario.persona.level) <= 1
            by_level[scenario.persona.level].append(place)
    means = [statistics.mean(by_level[level]) for level in range(1, 6)]
    assert means == sorted(means) and means[4] - means[0] > 2.5


def test_the_agent_is_told_the_signals_and_nothing_of_the_persona():
    for scenario in deal(64):
        prompt = scenario.agent_prompt
        assert all(f"{name}: {value}\n" in prompt for name, value in scenario.order.signals)
        assert not any(secret in prompt for secret in (*DEMANDS, *generator.DEMAND_TEXTS.values(), "Cooperation"))
        example = prompt.rpartition("Answer every turn as ")[2].replace("chat or voucher", "chat")
        assert turn_format.parse(example).action == "chat"


def test_the_embedded_endpoint_reads_back_what_the_prompt_says():
    for scenario in deal(64):
        case = reading.read_case(generator.user_prompt(scenario))
        order = scenario.order
        assert case.customer == (scenario.persona.level, scenario.demand, order.supported)
        assert case.items == tuple(item.split("*")[0] for item in order.items.split(","))
        assert (case.merchant, case.complaint, case.record) == (order.merchant, order.complaint, order.record)
        assert case.style == scenario.persona.communication_style


@pytest.mark.parametrize("options", [{"difficulty": "easy"}, {"difficulty": "hard", "split": "dev"}])
def test_an_unknown_difficulty_is_refused(options):
    with pytest.raises(ValueError, match="config.data.difficulty.*hard.*normal"):
        next(generator.deal_scenarios(0, **options))
