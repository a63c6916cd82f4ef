"""What the embedded customer reads in a dialogue's replies, for the tests that look at what agents say."""

from rollouts.domains.fds import faults, turn_format


def read_turns(dialogue):
    """Lists (reply, events read) of the turns of a dialogue."""
    replies = [turn_format.parse(turn.text) for turn in dialogue.turns]
    read = faults.read_events(dialogue.task, [(reply.response, reply.action) for reply in replies])
    return list(zip(replies, read, strict=True))
