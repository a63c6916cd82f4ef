"""The tables of docs/gym.md, the frontiers that are kept, and where losses come from."""

import itertools

import pytest

from benchmarks import frontiers, gap, gym
from rollouts.domains.fds.embedded import kept, oracle, regret
from tests.builders import runs


@pytest.mark.parametrize("table", gym.TABLES, ids=lambda table: table.__name__)
def test_the_page_has_the_tables_of_the_rules(table):
    assert f"\n\n{table()}\n\n" in (runs.ROOT / "docs" / "gym.md").read_text(encoding="utf-8")


def test_the_frontiers_that_are_kept_follow_from_the_rules_as_they_are():
    """If this fails, rules changed: run `python -m benchmarks.frontiers`, then update docs/gym.md."""
    for difficulty, knows in itertools.product(frontiers.DIFFICULTIES, frontiers.KNOWS):
        assert kept.find_columns(difficulty, knows, "test") is not None
        found = oracle.compute_frontier(difficulty, knows=knows)
        assert list(found.rates) == kept.find_columns(difficulty, knows, "test")["rates"]


@pytest.fixture
def rules(monkeypatch, tmp_path):
    """Another file of frontiers, and nothing read of any so far."""
    monkeypatch.setattr(kept, "_FILE", tmp_path / "frontiers.json")
    kept._read_file.cache_clear()
    yield monkeypatch
    kept._read_file.cache_clear()


def test_frontiers_of_other_rules_are_not_used(rules):
    columns = {"rates": [0.0], "satisfaction": [2.0], "prices": [1.0]}
    kept.write_frontiers({("hard", "all", "test"): columns})
    assert kept.find_columns("hard", "all", "test") == columns
    assert kept.find_columns("hard", "messages", "test") is None
    kept._read_file.cache_clear()
    rules.setattr(kept, "digest_rules", lambda: "other")
    assert kept.find_columns("hard", "all", "test") is None


def row(scenario, *turns, last, end="rated", outcome=3.0):
    """A line of a transcript file; a turn is (the customer's words, the agent's, action)."""
    told = [
        {"messages": [{"role": "user", "content": said}], "response": response, "action": action}
        for said, response, action in turns
    ]
    voucher = any(action == "voucher" for *_, action in turns)
    return {
        "task": scenario.description,
        "turns": told,
        "end": end,
        "outcome": outcome,
        "cost": {"voucher": float(voucher)},
        "last_words": last,
        "failure": "",
    }


SCENARIO = next(gap.generator.deal_scenarios(1, split="test"))
NAME = SCENARIO.order.items[0].name
PROBLEM = {
    "late delivery": f"I am sorry that your {NAME} came so late.",
    "food temperature": f"I am sorry that your {NAME} arrived cold.",
    "damaged packaging": f"I am sorry that your {NAME} was spilled.",
    "missing items": f"I am sorry that your {NAME} was missing.",
    "taste below expectations": f"I am sorry that your {NAME} tasted so bad.",
    "not fresh or undercooked": f"I am sorry that your {NAME} was raw inside.",
}[SCENARIO.order.complaint]


@pytest.fixture(scope="module")
def opening():
    """What the customer of SCENARIO writes first."""
    from rollouts.domains.fds.embedded import app

    prompt = {"role": "system", "content": gap.generator.user_prompt(SCENARIO)}
    return app.play_user([prompt, {"role": "user", "content": "(begin)"}], 0)


def test_a_loss_is_put_down_to_how_it_came_about(opening):
    def lose(*turns, **changes):
        return gap.replay(row(SCENARIO, *turns, last="Bye. [end:3]", **changes), 1.4).regret

    good = lose((opening, PROBLEM, "chat"))
    assert good == pytest.approx(regret.Regret(0.0, 0.0, 0.0), abs=0.05)
    rude = lose((opening, f"{PROBLEM} You are an idiot.", "chat"))
    assert rude.language > 0.4 and rude.decision + rude.execution < 0.05
    dry = lose((opening, "Is there anything else I can do?", "chat"))
    assert dry.execution > 0.2 and dry.language == 0
    broken = lose((opening, "", ""), end="malformed", outcome=-3.0)
    assert broken.language > 1.5 and broken.decision == broken.execution == 0
    early = lose((opening, "A voucher was just issued for you.", "voucher"))
    assert early.decision + early.execution > 0.3


def test_the_report_adds_up(opening):
    rows = [
        row(SCENARIO, (opening, PROBLEM, "chat"), last="Bye. [end:3]"),
        row(SCENARIO, (opening, "Sorry.", "voucher"), last="Bye. [end:2]", outcome=2.0),
    ]
    text = gap.report(rows, "hard")
    assert "2 dialogues, vouchers 50.0%, satisfaction 2.500" in text
    line = next(line for line in text.splitlines() if line.startswith("loss"))
    total, *parts = (float(word) for word in line.replace("loss", "").replace(",", "").split() if _is_number(word))
    assert total == pytest.approx(sum(parts[:5]), abs=0.004)


def _is_number(word):
    try:
        float(word)
    except ValueError:
        return False
    return True
