"""What each message of the embedded customer tells, before it is put in words, with exact probabilities."""

from typing import NamedTuple


class Signal(NamedTuple):
    """What one message of the customer tells."""

    kind: str  # "opening" | "answer" | "farewell" | "walkout"
    reaction: str = ""  # a key of REACTIONS: the strongest thing that happened; "" in openings, farewells and walkouts
    stance: str = ""  # a key of STANCES, noisy given the demand; "": nothing is said of the wish
    hint: int = 0  # of a voucher's worth, noisy: 0 nothing, 1 little, 2 some, 3 much, 4 very much
    picture: bool = False  # a picture is sent
    detail: bool = False  # details of what happened are told
    heat: int = 0  # 0 calm, 1 annoyed, 2 furious; exact in openings, less than the anger in answers of the silent
    rating: int = 0  # 1..5 in farewells
    wants: str = ""  # in openings, as in `latent.Customer`: "steps" | "short"


REACTIONS = {
    "unbacked": "caught: nothing was given, though the agent says so",
    "promise": "does not believe the promise",
    "wrong_fact": "that is not my order",
    "made_up": "the record is invented",
    "rude": "hurt by an insult",
    "negated": "protests at being turned away",
    "not_understood": "cannot make sense of the reply",
    "spam": "phrases are thrown at me",
    "repeat": "that was said before",
    "long": "too much text, or too many things at once",
    "asked_again": "the evidence, the wish or the answer was given already",
    "refused_evidence": "will not prove anything before being heard",
    "early_offer": "a voucher, though nobody has looked yet",
    "refused_offer": "no to the voucher",
    "agreed": "yes to the voucher",
    "agreed_gladly": "yes to the voucher, gladly",
    "evidence": "here is the picture",
    "probed": "says what would be welcome",
    "contradicted": "disputes a record that speaks against the claim",
    "empty": "sorry does not help",
    "dismissed": "is being got rid of too early",
    "listened": "feels understood",
    "facts": "takes the facts",
    "noted": "glad that it is passed on",
    "steps": "glad to know what happens next",
    "limit": "takes it that a refund is impossible",
    "nothing": "and?",
}
"""Reaction -> meaning, the strongest first."""

STANCES = {
    "refund_only": "wants the money back and nothing else",
    "refund_rather": "would rather have the money back",
    "open": "asks what will be done about it",
    "report": "only wants it to be known",
}
