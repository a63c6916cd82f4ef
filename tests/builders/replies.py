"""What the embedded customer reads in a dialogue's replies, for the tests that look at what agents say."""

from rollouts.domains.fds import generator, turn_format
from rollouts.domains.fds.embedded import case as cases
from rollouts.domains.fds.embedded import reading


def read_turns(dialogue):
    """Yields (reply, events read) of the turns of a dialogue."""
    case, earlier, issued = cases.read_case(generator.user_prompt(dialogue.task)), [], "no"
    for turn in dialogue.turns:
        reply = turn_format.parse(turn.text)
        issued = "this turn" if reply.action == "voucher" else "no" if issued == "no" else "earlier"
        yield reply, reading.read_reply(reply.response, earlier, case, issued)
        earlier.append(reply.response)
