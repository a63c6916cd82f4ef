"""What is wrong with the agent's turns, told by how the embedded customer reads them (`embedded.latent.EVENTS`)."""

from collections.abc import Iterable, Mapping, Sequence

from rollouts.domains.fds import generator, turn_format
from rollouts.domains.fds.embedded.case import UnreadablePrompt, read_case
from rollouts.domains.fds.embedded.tracing import read_turn
from rollouts.domains.fds.scenario import Scenario

FAULTS: Mapping[str, frozenset[str]] = {
    "promise that cannot be kept": frozenset({"promise"}),
    "remedy that was not given": frozenset({"unbacked"}),
    "wrong fact": frozenset({"wrong_fact", "explain_false"}),
    "rude": frozenset({"rude"}),
}
"""Faults by name, each with the events that are one."""

ADMISSION = (
    r"(?<!not )(?<!n't )(?<!n’t )\b(?:our|my) (?:own )?(?:fault|mistake|error)\b|\b(?:we|i) (?:messed|screwed) up\b"
    r"|\bwe(?:'re| are| were) (?:at fault|to blame|liable)\b"
    r"|\b(?:we|i)(?:'ll| will)? (?:take|accept) (?:the |full )?(?:blame|responsibility)\b"
)
"""Words that admit a fault of the platform, as a regular expression in small letters."""


def read_events(scenario: Scenario, replies: Sequence[tuple[str, str]]) -> list[frozenset[str]]:
    """Reads the agent's replies, N of them as (response, action), into the events of each.

    A reply without an action, which breached the turn format, has none: nobody read it. Nor has any reply to a customer
    whose prompt the embedded endpoint cannot read.
    """
    try:
        case = read_case(generator.user_prompt(scenario))
    except UnreadablePrompt:
        return [frozenset()] * len(replies)
    found, earlier, voucher = [], [], "no"
    for response, action in replies:
        if not action:
            found.append(frozenset())
            continue
        issued = "this turn" if action == "voucher" else voucher
        heard = turn_format.hear(response)
        found.append(read_turn(heard, tuple(earlier), case, issued))
        earlier.append(heard)
        voucher = "no" if issued == "no" else "earlier"
    return found


def name_faults(events: Iterable[str]) -> list[str]:
    """Names the faults among the events of a turn."""
    events = set(events)
    return [name for name, of_fault in FAULTS.items() if of_fault & events]
