"""The oracle: plans against enumeration, the frontier by hand, and the scripted oracle that reaches it in the gym."""

import asyncio
import itertools
import math
import random

import numpy as np
import pytest

from benchmarks import gym
from cmpo.cli import agents
from cmpo.training import collecting
from configs import fds as configs
from rollouts.domains.fds import generator, turn_format
from rollouts.domains.fds.embedded import latent, oracle, reading
from rollouts.domains.fds.embedded.latent import Customer
from rollouts.domains.fds.scenario import DEMANDS
from rollouts.domains.fds.scripted import OracleAgent
from rollouts.types import Message
from tests.builders import runs

NAMED = {"level": {1}, "supported": {False}}  # what rules ask about who does not change
CUSTOMERS = [Customer(*key) for key in itertools.product(range(1, 6), DEMANDS, (True, False, None))]


def enumerated(customer, mood, replies):
    """The best expected rating from `mood` on, by trying all of `replies` in each turn."""
    best = 0.0
    for events in replies:
        after = latent.apply_events(customer, mood, events)
        end = latent.find_end(customer, after)
        if end == "rated":
            best = max(best, latent.expected_rating(customer, after))
        elif not end:
            best = max(best, enumerated(customer, after, replies))
    return best


def replies(events, most, voucher):
    """All sets of up to `most` of `events`; spam or "nothing" where there are none; with `voucher`, that as well."""
    said = [frozenset(some) for count in range(1, most + 1) for some in itertools.combinations(events, count)]
    kept = [*said, frozenset({"nothing"}), frozenset({"spam"})]
    return kept + [some | {"voucher"} for some in (frozenset(), *kept)] if voucher else kept


def passed(customer):
    """The moods that single acts lead through."""
    moods = [latent.start_mood(customer)]
    for mood in moods:
        if not latent.find_end(customer, mood):
            moods += {latent.apply_events(customer, mood, frozenset({act})) for act in oracle.ACTS} - set(moods)
    return [mood for mood in moods if not latent.find_end(customer, mood)]


@pytest.mark.parametrize("voucher", [False, True])
@pytest.mark.parametrize("customer", [Customer(1, DEMANDS[1], False), Customer(4, DEMANDS[3], True)], ids=str)
def test_nothing_that_can_be_said_does_better(customer, voucher):
    """All kinds of last turns, harmful events included, and all pairs of events in the last two."""
    every = [event for event in latent.EVENTS if event not in ("voucher", "spam", "nothing")]
    moods = sorted(passed(customer))
    for mood in {mood._replace(patience=1) for mood in moods[::32]}:
        want = enumerated(customer, mood, replies(every, reading.MANY_ACTS, voucher))
        assert oracle._find_best_plans(customer, mood)[voucher].rating == pytest.approx(want)
    for mood in {mood._replace(patience=2) for mood in moods[::90]}:
        assert (
            oracle._find_best_plans(customer, mood)[voucher].rating
            >= enumerated(customer, mood, replies(every, 2, voucher)) - 1e-9
        )


def test_a_plan_equals_enumeration_over_three_turns():
    customer = Customer(2, DEMANDS[2], False)
    mood = latent.start_mood(customer)._replace(patience=3)
    assert oracle._find_best_plans(customer, mood)[False].rating == pytest.approx(
        enumerated(customer, mood, replies(oracle.ACTS, 3, voucher=False))
    )


@pytest.mark.parametrize("customer", CUSTOMERS, ids=str)
def test_plans_are_worth_what_they_say(customer):
    for voucher in (False, True):
        plan, mood = oracle.plan_dialogue(customer, voucher=voucher), latent.start_mood(customer)
        for events in plan.turns:
            assert not latent.find_end(customer, mood)
            mood = latent.apply_events(customer, mood, events)
        assert latent.find_end(customer, mood) == "rated"
        assert latent.expected_rating(customer, mood) == pytest.approx(plan.rating)
        assert voucher or not mood.voucher


def test_nothing_is_lost_by_seeing_the_words_alone():
    """One plan for all levels, the same first turn for all demands: what the level 1 is best served with."""
    for customer in CUSTOMERS:
        for voucher in (False, True):
            cautious = oracle.plan_dialogue(customer._replace(level=1), voucher=voucher).turns
            assert cautious[0] == {"listen"}  # and the answer to it says what the customer wants
            mood = latent.start_mood(customer)
            for events in cautious:
                mood = latent.apply_events(customer, mood, events)
            want = oracle.plan_dialogue(customer, voucher=voucher).rating
            assert latent.find_end(customer, mood) == "rated"
            assert latent.expected_rating(customer, mood) == pytest.approx(want)


def test_whom_the_rules_cannot_tell_apart():
    """`oracle.plan_dialogue` takes level 2 for 5 and a silent record for one that supports; no rule may name them."""
    named = {field: {value for rule in latent.RULES for value in rule.when.get(field, ())} for field in NAMED}
    assert named == NAMED


def test_ratings_by_hand():
    flexible = Customer(3, "compensation_flexible", True)
    # heard once, evidence and facts for trust; and an agreed voucher: 1.3 + 0.3 + 2 x 0.2, and 2.7
    assert oracle.plan_dialogue(flexible, voucher=False).rating == pytest.approx(2.0)
    assert oracle.plan_dialogue(flexible, voucher=True).rating == pytest.approx(4.7)
    # anger of 1 stays; facts settle a contradicted claim: 1.3 + 0.3 + 0.4 + 0.4 - 0.3
    assert oracle.plan_dialogue(Customer(1, "refund_insistence", False), voucher=False).rating == pytest.approx(2.1)


def test_the_frontier_by_hand():
    most, least = Customer(3, "compensation_flexible", True), Customer(3, "refund_insistence", True)
    none = Customer(3, "feedback_focus", False)  # the facts do as much as a voucher
    population = {least: 0.5, most: 0.2, none: 0.3}
    found = oracle.compute_frontier(population)
    never = 0.5 * 2.0 + 0.2 * 2.0 + 0.3 * 4.3
    np.testing.assert_allclose(found.rates, [0, 0.2, 0.7])
    np.testing.assert_allclose(found.satisfaction, [never, never + 0.2 * 2.7, never + 0.2 * 2.7 + 0.5 * 0.7])
    assert found.satisfaction_at(0.1) == pytest.approx(never + 0.1 * 2.7)
    assert found.satisfaction_at(1.0) == found.satisfaction_at(0.7)
    assert oracle.allocate_vouchers(population, 0.3) == pytest.approx({most: 1.0, least: 0.2, none: 0.0})
    assert oracle.allocate_vouchers(population, 0.0) == dict.fromkeys(population, 0.0)
    assert oracle.allocate_vouchers(population, 1.0) == {most: 1.0, least: 1.0, none: 0.0}


@pytest.mark.parametrize("difficulty", ["hard", "normal"])
def test_the_frontier_of_the_generator_is_concave_and_any_policy_is_below(difficulty):
    population = oracle.weigh_customers(difficulty)
    assert math.isclose(sum(population.values()), 1)
    found = oracle.compute_frontier(population)
    slopes = np.diff(found.satisfaction) / np.diff(found.rates)
    assert (slopes > 0).all() and (np.diff(slopes) < 0).all()
    rng = np.random.default_rng(0)
    for _ in range(20):  # vouchers dealt at random, every customer served as well as can be
        gets = {who: rng.random() for who in population}
        rate = sum(share * gets[who] for who, share in population.items())
        mean = sum(
            share
            * (
                gets[who] * oracle.plan_dialogue(who, voucher=True).rating
                + (1 - gets[who]) * oracle.plan_dialogue(who, voucher=False).rating
            )
            for who, share in population.items()
        )
        assert mean <= found.satisfaction_at(rate) + 1e-9
    for price in slopes:  # at each price the best allocation is a point of the frontier
        gains = {
            who: oracle.plan_dialogue(who, voucher=True).rating - oracle.plan_dialogue(who, voucher=False).rating
            for who in population
        }
        value = sum(share * max(gains[who] - price, 0) for who, share in population.items())
        assert found.satisfaction[0] + value == pytest.approx(np.max(found.satisfaction - price * found.rates))


def test_the_distribution_is_what_the_generator_deals():
    population = oracle.weigh_customers("normal", "train")
    dealt = [
        oracle.customer_of(scenario)
        for scenario in itertools.islice(generator.deal_scenarios(5, difficulty="normal"), 128 * 40)
    ]
    for field, place in (("level", 0), ("demand", 1), ("supported", 2)):
        for value in {who[place] for who in dealt}:
            want = sum(share for who, share in population.items() if who[place] == value)
            assert np.mean([who[place] == value for who in dealt]) == pytest.approx(want, abs=0.03), field


@pytest.mark.parametrize("voucher", [False, True])
@pytest.mark.parametrize("level", range(1, 6))
def test_every_sentence_is_read_as_it_was_meant(level, voucher):
    async def talk(scenario, turns, seed):
        session = await OracleAgent(dict.fromkeys(CUSTOMERS, float(voucher))).open(scenario, seed)
        replies = [(await session.reply([Message("user", "And?")], 0)).text for _ in range(turns)]
        return [turn_format.parse(reply) for reply in replies]

    rng = random.Random(level)
    for demand, seed in itertools.product(DEMANDS, range(15)):
        scenario = generator.draw_scenario(rng, "", level, demand, "test")
        case, said = reading.read_case(generator.user_prompt(scenario)), []
        plan = oracle.plan_dialogue(case.customer, voucher=voucher)
        for reply, events in zip(asyncio.run(talk(scenario, len(plan.turns), seed)), plan.turns, strict=True):
            issued = "this turn" if reply.action == "voucher" else "no"
            assert reading.read_reply(reply.response, said, case, issued) == events
            said.append(reply.response)


@pytest.mark.parametrize("rate", [0.3, 1.0])
def test_the_scripted_oracle_reaches_the_frontier_in_the_gym(rate):
    """But for chance: the rounding of ratings, who happens to call, and who of equals gets a voucher."""
    config = configs.get_config()
    scenarios = list(itertools.islice(generator.deal_scenarios(11, split="test"), 256))
    dialogues = collecting.collect_dialogues(
        config, agents.load_scripted(config, "oracle", rate), scenarios, repeats=1, seed=3
    )
    assert all(dialogue.success for dialogue in dialogues)
    outcomes = [dialogue.outcome for dialogue in dialogues]
    given = np.mean([dialogue.cost[0] for dialogue in dialogues])
    frontier = oracle.compute_frontier(oracle.weigh_customers())
    assert given == pytest.approx(min(rate, frontier.rates[-1]), abs=0.05)
    assert abs(np.mean(outcomes) - frontier.satisfaction_at(given)) < 3 * np.std(outcomes) / math.sqrt(len(outcomes))
    assert np.mean([turn.process_reward for dialogue in dialogues for turn in dialogue.turns]) > 0.9


def test_a_customer_of_another_gym_who_goes_on_is_asked_to_close():
    scenario = next(generator.deal_scenarios(1))

    async def talk():
        session = await OracleAgent(dict.fromkeys(CUSTOMERS, 0.0)).open(scenario, 0)
        return [(await session.reply([Message("user", "And?")], 0)).text for _ in range(8)]

    assert "nything else" in asyncio.run(talk())[-1]


@pytest.mark.parametrize("table", gym.TABLES, ids=lambda table: table.__name__)
def test_the_tables_in_the_documentation_are_the_rules(table):
    assert f"\n\n{table()}\n\n" in (runs.ROOT / "docs" / "gym.md").read_text(encoding="utf-8")


def test_the_documentation_tells_the_rest_of_the_rating():
    worth = {"noted": latent.NOTED_WORTH, "trust": latent.TRUST_WORTH, "anger": latent.ANGER_WORTH}
    assert worth == {"noted": 0.6, "trust": 0.2, "anger": -0.3}  # if these change, docs/gym.md has to as well
    assert set(gym.MEANINGS) == set(latent.Mood._fields) and reading.MANY_ACTS == 4
