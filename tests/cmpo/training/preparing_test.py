"""What a run learns from is its demonstrations, varied as its config says, the same at every start."""

from cmpo.training import demonstrations, preparing, tasks
from cmpo.training.variations import vary_conversations
from rollouts.seeds import fold
from rollouts.types import Message
from tests.builders.runs import tiny

TURN = "<think>hm</think><response>Your Soup came late: {}.</response><action>chat</action>"
CONVERSATIONS = [
    [
        Message("system", f"You serve.\nitems: 1 Soup 4.10\nrecord: {number} minutes late"),
        Message("user", "My Soup is late, where is the courier?"),
        Message("assistant", TURN.format(f"{number} minutes late")),
    ]
    for number in range(20, 40)
]


def prepare(directory, **changes):
    demonstrations.write_conversations(directory / "given.jsonl", CONVERSATIONS)
    config = tiny(**{"sft.path": str(directory / "given.jsonl")} | changes)
    return preparing.prepare_run(config, directory, tasks.open_source(config), None).conversations


def test_demonstrations_are_varied_as_the_config_says_and_alike_at_every_start(tmp_path):
    (tmp_path / "plain").mkdir()
    (tmp_path / "varied").mkdir()
    assert prepare(tmp_path / "plain") == CONVERSATIONS
    shares = {"sft.vary_facts": 0.5, "sft.vary_words": 0.25}
    varied = prepare(tmp_path / "varied", **shares)
    seed = fold(tiny().train.seed, "variations")
    assert varied == vary_conversations(CONVERSATIONS, facts=0.5, words=0.25, seed=seed)
    assert varied != CONVERSATIONS and prepare(tmp_path / "varied", **shares) == varied
