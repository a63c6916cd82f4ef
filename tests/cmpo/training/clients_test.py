"""The clients of a config's endpoints: where their counts and records are, and what they have spent."""

import asyncio

import jax
import pytest

from cmpo.training import collecting
from cmpo.training.clients import make_clients, sum_spending
from rollouts.domains.fds import generator, rules
from rollouts.types import Message
from tests.builders.runs import Terse, tiny

SCENARIOS = [scenario for scenario, _ in zip(generator.deal_scenarios(3), range(4), strict=False)]


def test_what_was_spent_is_told_by_endpoint(tmp_path):
    config = tiny(**{"user.prompt_price": 1e6, "user.answer_price": 1e6})
    clients = make_clients(config, tmp_path)
    collecting.collect_dialogues(config, collecting.serve_agent(Terse()), SCENARIOS, repeats=1, seed=7, clients=clients)
    found = sum_spending(clients)
    assert set(found) == {f"{name}_{what}" for name in ("user", "judge") for what in ("calls", "tokens", "cost")}
    assert found["user_calls"] > 4 and found["judge_calls"] >= 4 and found["judge_cost"] == 0
    assert found["user_cost"] == pytest.approx(found["user_tokens"])
    assert (tmp_path / "spent" / "user-0.json").exists()


def test_clients_have_the_configs_record_and_counts_of_their_own_process(tmp_path, monkeypatch):
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    config = tiny(**{"endpoints.record": str(tmp_path / "record")})

    async def ask():
        clients = make_clients(config, tmp_path)
        async with clients["user"] as user:
            prompt = generator.user_prompt(SCENARIOS[0])
            return await user.chat([Message("system", prompt), Message("user", rules.BEGIN)], seed=0)

    assert asyncio.run(ask())
    assert list((tmp_path / "record").rglob("*.json")) and (tmp_path / "spent" / "user-1.json").exists()
