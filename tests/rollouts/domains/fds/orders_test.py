"""Orders: facts that agree with each other and with the complaint, and those that training never has."""

import random
import statistics

import pytest

from rollouts.domains.fds import orders
from rollouts.domains.fds.scenario import COMPLAINTS, Item, write_items
from rollouts.domains.fds.shift import NO_SHIFT, Shift
from rollouts.domains.fds.words import records


def draw(count, *, complaint="late delivery", says="supports", honest=True, shift=NO_SHIFT, **options):
    return [orders.draw_order(complaint, says, honest, random.Random(seed), shift, **options) for seed in range(count)]


def measure_minutes(order):
    begin, end = (int(clock[:2]) * 60 + int(clock[3:]) for clock in (order.ordered, order.delivered))
    return (end - begin) % 1440


def test_items_are_one_to_three_of_different_names_with_prices_and_quantities():
    drawn = draw(400)
    assert {len(order.items) for order in drawn} == {1, 2, 3}
    assert {item.quantity for order in drawn for item in order.items} == {1, 2, 3}
    for order in drawn:
        assert len({item.name for item in order.items}) == len(order.items)
        assert all(190 <= item.price <= 1890 and item.price % 10 == 0 for item in order.items)
        shown = dict(order.signals)["items"].split(", ")
        assert shown == [f"{item.quantity} {item.name} {item.price / 100:.2f}" for item in order.items]


@pytest.mark.parametrize("complaint, kind", [("not fresh or undercooked", "solid"), ("damaged packaging", "soft")])
def test_the_first_dish_is_one_that_the_complaint_can_be_about(complaint, kind):
    names = orders.list_names("dishes", False, kind)
    assert {order.items[0].name for order in draw(300, complaint=complaint)} == set(names)


@pytest.mark.parametrize("complaint", COMPLAINTS)
@pytest.mark.parametrize("says", records.SAYS)
@pytest.mark.parametrize("shift", [NO_SHIFT, Shift(phrasing=True), Shift(facts=True)], ids=str)
def test_times_agree_with_the_record(complaint, says, shift):
    for order in draw(60, complaint=complaint, says=says, shift=shift):
        minutes, record = measure_minutes(order), order.record
        assert record.supports is records.SAYS[says]
        if record.kind in orders._DELAYS:
            assert 24 + record.numbers[0] <= minutes <= 45 + record.numbers[0]
        elif complaint == "late delivery" and says != "contradicts":
            assert minutes >= 24 + (61 if shift.facts else 25)
        else:
            assert 24 <= minutes <= 45


def test_an_order_that_is_not_late_is_what_a_liar_complains_of():
    assert max(map(measure_minutes, draw(200, says="silent", honest=False))) <= 45
    assert min(map(measure_minutes, draw(200, says="silent", honest=True))) > 45


def test_the_tag_is_true_as_often_as_it_is_said_and_else_another_complaint():
    tags = [order.tag for order in draw(1000)]
    assert tags.count("late delivery") / 1000 == pytest.approx(orders.TAG_SHARE, abs=0.04)
    assert set(tags) == set(COMPLAINTS)
    assert {order.tag for order in draw(50, tag_share=1.0)} == {"late delivery"}


def test_unseen_facts_share_no_name_price_kind_or_number_with_the_usual_ones():
    for complaint in COMPLAINTS:
        for says in ("supports", "contradicts", "beside"):
            usual, unseen = (draw(200, complaint=complaint, says=says, shift=Shift(facts=on)) for on in (False, True))
            assert {order.merchant for order in usual}.isdisjoint(order.merchant for order in unseen)
            names = {item.name for order in usual for item in order.items}
            assert names.isdisjoint(item.name for order in unseen for item in order.items)
            assert {order.record.kind for order in usual}.isdisjoint(order.record.kind for order in unseen)
            assert max(item.price for order in unseen for item in order.items) > 1890


def test_phrasing_shifts_words_and_not_facts():
    for usual, shifted in zip(draw(100), draw(100, shift=Shift(phrasing=True)), strict=True):
        assert usual.record.text != shifted.record.text and usual.courier != shifted.courier
        assert usual.record.kind == shifted.record.kind and usual.record.numbers == shifted.record.numbers


def test_writing_items():
    items = (Item("Beef Burger", 1, 1250), Item("Cola", 2, 205), Item("Soup", 1, 0))
    assert write_items(items) == "1 x Beef Burger at 12.50; 2 x Cola at 2.05; 1 x Soup"


def test_orders_vary():
    assert len({order.signals for order in draw(2000)}) == 2000
    assert statistics.mean(len(order.signals[4][1].split()) for order in draw(300)) < 8
