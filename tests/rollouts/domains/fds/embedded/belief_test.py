"""Agents that play by belief: moods are known for certain, values are what play gives, and each fault has its price."""

import random

import numpy as np
import pytest

from rollouts.domains.fds.embedded import belief, latent, oracle, planning, population, regret, signals
from rollouts.domains.fds.embedded.latent import Customer
from tests.builders.customers import CUSTOMER, draw_customer, search_best

PRICES = (0.3, 0.9, 1.6)


def hear_opening(customer, rng):
    opening = signals.draw_signal(signals.list_openings(customer), rng)
    return belief.open_belief(opening, customer.supported)


def take_turn(customer, mood, events, rng):
    """The mood after a turn, and what the customer answers."""
    outcomes = latent.list_outcomes(customer, mood, events)
    after = rng.choices([mood for _, mood in outcomes], weights=[chance for chance, _ in outcomes])[0]
    return after, signals.draw_signal(signals.list_signals(customer, mood, after, events), rng)


def play_dialogue(customer, price, rng, *, reads=True):
    """Plays by the rules, without text. Returns the beliefs, replies and the last mood."""
    mood, held = latent.start_mood(customer), hear_opening(customer, rng)
    steps = []
    while not latent.find_end(customer, mood):
        events = belief.best_acts(held, price) if reads else belief.best_known_acts(customer, mood, price)
        steps.append((held, events))
        mood, answer = take_turn(customer, mood, events, rng)
        if answer.kind == "answer":
            held = held.update(events, answer)
            assert held.mood == mood
    return steps, mood


@pytest.mark.parametrize("reads", [True, False])
@pytest.mark.parametrize("price", PRICES)
def test_play_is_on_the_frontier(price, reads):
    """Ratings less price, and the voucher rate, within three deviations; three to six turns, and nobody walks out."""
    rng = random.Random(17)
    count = 1200 if reads else 400
    values, gave, turns = [], [], []
    for _ in range(count):
        customer = draw_customer(rng)
        steps, mood = play_dialogue(customer, price, rng, reads=reads)
        assert latent.find_end(customer, mood) == "rated" and mood.over
        turns.append(len(steps))
        gave.append(mood.voucher > 0)
        values.append(latent.expected_rating(customer, mood) - price * gave[-1])
    problems = oracle.list_problems(knows="messages" if reads else "all")
    value, rate = oracle.measure_price(problems, price)
    assert np.mean(values) == pytest.approx(value, abs=3 * np.std(values) / count**0.5)
    assert np.mean(gave) == pytest.approx(rate, abs=3 * (rate * (1 - rate) / count) ** 0.5)
    assert min(turns) >= (3 if reads else 2) and max(turns) <= 6 and np.mean(turns) > 3.2


def test_a_belief_is_bayes_rule():
    """Against counting: of all customers drawn, those whose messages were the same."""
    customer = CUSTOMER._replace(discloses=True)
    found = []
    reply = (frozenset({"listen", "ask"}), frozenset({"probe"}), frozenset({"offer"}))
    opening = signals.Signal("opening", stance="open", hint=0, detail=True, heat=1, wants="steps")
    answers = (("", 3), ("open", 4), ("", 3))
    weights = population.weigh_hidden(1, True, "steps").copy()
    for place, (demand, worth) in enumerate(planning.HIDDEN):
        who = customer._replace(demand=demand, worth=worth)
        odds = {(told.stance, told.hint): odds for odds, told in signals.list_openings(who)}
        weights[place] *= odds.get(("open", 0), 0)
        mood = latent.start_mood(who)
        for events, answer in zip(reply, answers, strict=True):
            chance, after = latent.list_outcomes(who, mood, events)[0]
            odds = {(told.stance, told.hint): odds for odds, told in signals.list_signals(who, mood, after, events)}
            weights[place] *= chance * odds.get(answer, 0)
            mood = after
        found.append(mood)
    held = belief.open_belief(opening, True)
    mood = latent.start_mood(customer)
    for events, (stance, hint) in zip(reply, answers, strict=True):
        after = latent.list_outcomes(customer, mood, events)[0][1]
        told = dict.fromkeys(signals.list_signals(customer, mood, after, events))
        (answer,) = {signal for _, signal in told if (signal.stance, signal.hint) == (stance, hint)}
        held, mood = held.update(events, answer), after
    np.testing.assert_allclose(held.weights, weights / weights.sum(), atol=1e-12)
    assert set(found) == {held.mood} and held.mood.deal == 2
    assert held.demands["compensation_flexible"] == pytest.approx(held.weights[62:93].sum())
    assert held.worth > belief.open_belief(opening, True).worth + 3


def test_every_harm_lowers_what_can_still_be_had_in_every_mood_of_good_play():
    """For agents that read and go on as well as can be; the price is at most the voucher's own."""
    rng, met = random.Random(4), set()
    for customer in (draw_customer(rng) for _ in range(15)):
        price = rng.choice(PRICES)
        for held, events in play_dialogue(customer, price, rng)[0]:
            if held.mood in met:
                continue
            met.add(held.mood)
            best = belief.best_value(held, price)
            for harm in latent.HARMFUL:
                worse = regret.value_reply(held, events | {harm}, price, temper=customer.temper)
                assert worse < best - 0.049, (harm, held.mood, events)
    assert len(met) > 20


def test_regrets_tell_what_went_wrong():
    rng, price = random.Random(8), 0.9
    keen, cold = (Customer(3, demand, True, worth, True, True, "steps", "flares")
                  for demand, worth in (("compensation_flexible", 25), ("feedback_focus", 1)))  # fmt: skip
    for customer in (keen, cold):
        held, mood = hear_opening(customer, rng), latent.start_mood(customer)
        for events in ({"listen", "ask", "explain_true"}, {"listen", "probe", "note"}):
            mood, answer = take_turn(customer, mood, frozenset(events), rng)
            held = held.update(frozenset(events), answer)
        best = belief.best_acts(held, price)
        assert ("offer" in best) == (customer is keen)
        np.testing.assert_allclose(regret.measure_regret(held, best, price), 0, atol=1e-9)
        wrong = {"close"} if customer is keen else {"voucher"}
        lost = regret.measure_regret(held, frozenset(wrong), price)
        assert lost.decision > 0.3 and lost.language == 0
        told = regret.measure_regret(held, best | {"wrong_fact"}, price)
        assert told.language > 0.3 and told.decision == pytest.approx(0) and told.execution == pytest.approx(0)
        idle = regret.measure_regret(held, frozenset({"note"}), price)
        assert idle.execution == pytest.approx(0.05, abs=0.02) and idle.decision == 0


def test_the_sum_of_regrets_is_the_loss():
    """Of an agent that errs: its loss is its regrets but for luck, which is what answers told more than was hoped."""
    rng, price, regrets = random.Random(9), 0.9, []
    value, _ = oracle.measure_price(oracle.list_problems(knows="messages"), price)
    wrong = [{"note"}, {"apology", "listen"}, {"voucher"}, {"offer"}, {"rude", "ask"}, {"unbacked"}]
    for _ in range(16):
        customer = draw_customer(rng)
        mood, held = latent.start_mood(customer), hear_opening(customer, rng)
        lost, luck = 0.0, belief.best_value(held, price) - value
        while not latent.find_end(customer, mood):
            events = belief.best_acts(held, price)
            if rng.random() < 0.3:
                events = frozenset(rng.choice(wrong))
            found = regret.measure_regret(held, events, price, temper=customer.temper)
            assert min(found) > -1e-5  # not 0: ratings that are cut at 1 are not cut in plans
            lost += sum(found)
            hoped = regret.value_reply(held, events, price, temper=customer.temper)
            mood, answer = take_turn(customer, mood, events, rng)
            if answer.kind == "answer":
                held = held.update(events, answer)
                luck += belief.best_value(held, price) - hoped
        rating = latent.expected_rating(customer, mood) if latent.find_end(customer, mood) == "rated" else 0.0
        outcome = rating - price * (mood.voucher > 0)
        assert value - outcome == pytest.approx(lost - luck - (outcome - hoped), abs=1e-5)
        regrets.append(lost)
    assert np.mean(regrets) > 0.2


def test_the_best_for_a_customer_with_a_voucher_and_without():
    worths = [belief.best_rating(CUSTOMER._replace(worth=worth), voucher=True) for worth in range(0, 26, 5)]
    assert np.all(np.diff(worths) > 0)
    for worth, gains in ((2, False), (20, True)):
        who = CUSTOMER._replace(worth=worth)
        given, kept = (belief.best_rating(who, voucher=voucher) for voucher in (True, False))
        assert (given > kept + 0.9) == gains
    acts = [frozenset({"listen", "ask", "explain_true"}), frozenset({"close", "note", "listen"})]
    replies = [*acts, frozenset({"listen", "note", "limit"}), frozenset({"steps", "close"})]
    state = [(CUSTOMER, latent.start_mood(CUSTOMER)._replace(patience=3), 1.0)]
    lost = latent.PATIENCE_WORTH * (12)  # the search began with less patience
    assert belief.best_rating(CUSTOMER, voucher=False) == pytest.approx(
        search_best(state, 0.0, replies) - lost, abs=1e-9
    )


def test_misread_answers_break_nothing():
    rng = random.Random(1)
    held = hear_opening(CUSTOMER, rng)
    for _ in range(8):
        events = frozenset(rng.sample(sorted(set(latent.EVENTS) - {"voucher"}), 3))
        answer = signals.Signal(
            "answer", rng.choice(list(signals.REACTIONS)), rng.choice(["", *signals.STANCES]), rng.randrange(5)
        )
        held = held.update(events, answer)
        assert held.weights.sum() == pytest.approx(1)
        if not latent.find_end(CUSTOMER, held.mood):
            assert belief.best_acts(held, 0.9)
