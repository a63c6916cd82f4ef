"""The gym's scenarios: exact mixes, seeds, balance of small windows, and records that say what they are said to say."""

import collections
import dataclasses
import itertools
import json
import random
import re
import statistics

import pytest

from rollouts.domains.fds import generator, turn_format
from rollouts.domains.fds.embedded import case as cases
from rollouts.domains.fds.embedded import latent, population
from rollouts.domains.fds.rubrics import PROCESS
from rollouts.domains.fds.scenario import DEMANDS, read_description
from rollouts.domains.fds.shift import parse_shift
from rollouts.domains.fds.words import bank, records

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
    dealt = deal(1024)
    kinds = {kind.name: kind for kind in records.list_kinds()}
    stances, honest, tags = collections.Counter(), collections.defaultdict(list), 0
    for scenario in dealt:
        order, kind = scenario.order, kinds[scenario.order.record.kind]
        assert records.SAYS[kind.says] is order.supported is order.record.supports
        assert kind.complaint == ("any" if order.supported is None else order.complaint) and not kind.unseen
        stances[kind.says] += 1
        honest[order.supported].append(scenario.honest)
        tags += order.tag == order.complaint
        shown = dict(order.signals)
        assert list(shown) == ["items", "merchant", "times", "courier", "record", "tag"]
        assert (shown["record"], shown["tag"], shown["courier"]) == (order.record.text, order.tag, order.courier)
    assert {scenario.order.complaint for scenario in dealt} == set(generator.COMPLAINTS)
    assert {scenario.order.tag for scenario in dealt} == set(generator.COMPLAINTS) and len(generator.COMPLAINTS) == 6
    for says, share in (("supports", 0.5), ("contradicts", 0.3), ("beside", 0.1), ("silent", 0.1)):
        assert stances[says] / 1024 == pytest.approx(share, abs=0.05)
    assert tags / 1024 == pytest.approx(0.7, abs=0.05)
    assert all(honest[True])
    for supported in (False, None):
        assert statistics.mean(honest[supported]) == pytest.approx(population.HONEST[supported], abs=0.08)


def test_worth_follows_the_table_of_level_and_demand():
    scenarios = deal(2048)
    found, expected = [], []
    for scenario in scenarios:
        found.append(scenario.worth)
        odds = latent.WORTH[scenario.persona.level, scenario.demand]
        expected.append(sum(worth * chance for worth, chance in enumerate(odds)))
    assert statistics.mean(found) == pytest.approx(statistics.mean(expected), abs=0.6)
    above = [worth for worth, mean in zip(found, expected, strict=True) if mean > 12]
    below = [worth for worth, mean in zip(found, expected, strict=True) if mean < 8]
    assert statistics.mean(above) > statistics.mean(below) + 4 and min(above) < max(below)


@pytest.mark.parametrize("name", ["phrasing", "noise", "facts", "all"])
def test_a_shift_changes_words_and_facts_and_neither_who_calls_nor_why(name):
    shift = parse_shift(name)
    for usual, shifted in zip(deal(128, split="test"), deal(128, split="test", shift=shift), strict=True):
        assert shifted.persona == usual.persona and shifted.demand == usual.demand
        assert (shifted.worth, shifted.honest, shifted.shift) == (usual.worth, usual.honest, shift)
        assert shifted.order.complaint == usual.order.complaint and shifted.order.supported == usual.order.supported
        assert generator.split_of(shifted.order) == "test"
    orders = [scenario.order for scenario in deal(256, split="test", shift=shift)]
    seen = {item.name for scenario in deal(2048) for item in scenario.order.items}
    assert seen.isdisjoint(item.name for order in orders for item in order.items) == shift.facts
    spoken = [order.record for order in orders if order.record.kind != "silent"]  # there is one way to be silent
    texts = {re.sub(r"\d+", "", scenario.order.record.text) for scenario in deal(2048)}
    assert texts.isdisjoint(re.sub(r"\d+", "", record.text) for record in spoken) == (shift.phrasing or shift.facts)


def test_traits_lean_towards_the_level():
    by_level, shares = collections.defaultdict(list), collections.defaultdict(list)
    for scenario in deal(1024):
        level, customer = scenario.persona.level, generator.find_customer(scenario)
        place = list(bank.STYLES).index(scenario.persona.communication_style) + 1
        assert abs(place - level) <= 1
        by_level[level].append(place)
        for name in population.TRAITS:
            shares[name, level].append(getattr(customer, name) == population.TRAITS[name][0][0])
    means = [statistics.mean(by_level[level]) for level in range(1, 6)]
    assert means == sorted(means) and means[4] - means[0] > 2.5
    for (name, level), found in shares.items():
        assert statistics.mean(found) == pytest.approx(population.TRAITS[name][1][level - 1], abs=0.15)


def test_the_agent_is_told_the_signals_and_nothing_of_the_persona():
    for scenario in deal(64):
        prompt = scenario.agent_prompt
        assert all(f"{name}: {value}\n" in prompt for name, value in scenario.order.signals)
        secrets = (*DEMANDS, *generator.DEMAND_TEXTS.values(), "Cooperation", "points to", "Claim", "exaggerated")
        assert not any(secret in prompt for secret in secrets)
        example = prompt.rpartition("Answer every turn as ")[2].replace("chat or voucher", "chat")
        assert turn_format.parse(example).action == "chat"


@pytest.mark.parametrize("write", [generator.user_prompt, PROCESS.write_prompt], ids=["customer", "judge"])
@pytest.mark.parametrize("name", ["none", "phrasing", "noise=typos+emoji", "all"])
def test_the_embedded_endpoint_reads_back_what_a_prompt_says(write, name):
    shift = parse_shift(name)
    for scenario in deal(128, shift=shift):
        case, order = cases.read_case(write(scenario)), scenario.order
        assert case == cases.Case(
            customer=generator.find_customer(scenario),
            items=order.items,
            merchant=order.merchant,
            ordered=order.ordered,
            delivered=order.delivered,
            complaint=order.complaint,
            tag=order.tag,
            record=order.record,
            courier=order.courier,
            communication_style=scenario.persona.communication_style,
            emotional_style=scenario.persona.emotional_style,
            shift=dataclasses.replace(shift, facts=False),
        )


def test_a_description_that_went_through_json_gives_the_scenario_back():
    for scenario in deal(32, shift=parse_shift("phrasing,noise=typos")):
        read = read_description(json.loads(json.dumps(scenario.description)))
        assert read == dataclasses.replace(scenario, agent_prompt="")
