"""Puts the embedded customer's moods into words, in many phrasings."""

import random
from collections.abc import Sequence

from rollouts.domains.fds.embedded.latent import Mood
from rollouts.domains.fds.embedded.reading import Case
from rollouts.domains.fds.generator import COMPLAINTS

_OPENINGS = {
    "late delivery": (
        "My {item} came almost an hour late.",
        "I waited forever for this order, it came far too late.",
        "The delivery of my {item} was way too late.",
        "Why does an order from {merchant} take so long?",
    ),
    "food temperature": (
        "My {item} arrived completely cold.",
        "The food from {merchant} was stone cold.",
        "I got cold food, the {item} was not even warm.",
        "Cold {item} again, I cannot eat this.",
    ),
    "damaged packaging": (
        "My {item} was spilled all over the bag.",
        "The package from {merchant} came damaged.",
        "Everything leaked, the {item} is a mess.",
        "The box was crushed and the {item} spilled.",
    ),
    "missing items": (
        "Part of my order is missing, the {item} never came.",
        "The {item} is missing from the bag.",
        "I paid for the {item} and did not get it.",
        "My order from {merchant} is incomplete.",
    ),
    "taste below expectations": (
        "The {item} tasted awful.",
        "I had to throw the {item} away, the taste was terrible.",
        "The {item} from {merchant} has no taste at all.",
        "That was the worst {item} I ever tasted.",
    ),
    "not fresh or undercooked": (
        "The {item} was raw inside.",
        "My {item} is undercooked, this is dangerous.",
        "The {item} from {merchant} was not fresh.",
        "I got an undercooked {item}.",
    ),
}

_STANCES = {
    "refund_insistence": (
        "I want my money back and nothing else.",
        "Just refund me, I accept nothing but a refund.",
        "I only want my money back.",
        "A refund, nothing but a refund.",
    ),
    "refund_priority": (
        "I would prefer a refund if that is possible.",
        "A refund would be best, if you can do that.",
        "I would rather have my money back first of all.",
        "If possible I would like a refund.",
    ),
    "compensation_flexible": (
        "So what can you do about it?",
        "How will you make this right?",
        "What are you going to do for me now?",
        "I wonder what your solution is.",
    ),
    "feedback_focus": (
        "I thought you should know about it.",
        "I just want you to know what happened.",
        "Please make sure they hear about it.",
        "I am just reporting it so that it gets better.",
    ),
}

_GREETINGS = {
    "blunt and confrontational": ("Listen.", "Hey you.", "Unbelievable."),
    "polite": ("Hello.", "Good evening.", "Hi there."),
    "warm and detailed": ("Hello, thanks for being there.", "Hi, I hope you can help.", "Good evening to you."),
}

_PICTURES = ("[Sent Picture: {item}, {problem}]", "[Sent Picture: the {item}]", "[Sent Picture: {problem}]")

_REACTIONS = {  # what a customer may react to, and in which words
    "unbacked": (
        "My account shows no voucher at all.",
        "You say it is sent, but there is nothing.",
        "That is a lie, no voucher came.",
    ),
    "promise": ("I do not believe such promises.", "That is what they all promise.", "You cannot even do that."),
    "spam": ("You are throwing phrases at me.", "What is all this supposed to mean?", "That makes no sense."),
    "repeat": ("You said that already.", "Stop repeating yourself.", "Same words again."),
    "asked_again": ("I sent you that already.", "You have the picture.", "Look at what I sent."),
    "refused_evidence": (
        "Why should I prove anything to you?",
        "I will not run errands for you.",
        "Look it up yourself.",
    ),
    "evidence": ("Here you go.", "Here is the photo.", "Sure, have a look.", "See for yourself."),
    "refused_offer": ("I do not want your voucher.", "Keep your voucher.", "No voucher, thanks."),
    "early_offer": (
        "You have not even looked at it.",
        "You do not know what happened yet.",
        "A voucher, just like that?",
    ),
    "agreed": (
        "Yes, a voucher would be fine.",
        "Okay, I take the voucher.",
        "A voucher sounds good.",
        "Alright, voucher it is.",
    ),
    "unconvinced": ("I am not sure about a voucher.", "Why would I trust that?"),
    "made_up": ("That is not what happened.", "Where did you get that from?", "Your record is wrong."),
    "empty": ("Sorry does not help.", "You keep saying sorry.", "Spare me the apologies."),
    "dismissed": ("I am not done yet.", "Do not try to get rid of me.", "We are not finished."),
    "listened": ("Thanks for understanding.", "Right, exactly that.", "Good that you see it.", "Yes, that is it."),
    "noted": ("Good, please pass it on.", "Glad that you note it."),
    "facts": ("Okay, I see.", "If the record says so.", "Hm, I see."),
    "long": ("That is a lot of text.", "Shorter, please."),
    "": ("And?", "Hm.", "Well."),
}

_FAREWELLS = {
    5: ("Great, thank you so much.", "Perfect, you really helped me.", "Wonderful service, thanks."),
    4: ("Thank you, that helps.", "Good, thanks for your help.", "Fine, I appreciate it."),
    3: ("Okay then, thanks.", "Well, alright.", "That will do."),
    2: ("Not what I hoped for.", "I expected more.", "A pity, bye."),
    1: ("This was useless.", "Terrible service.", "I will never order again."),
}
_WALKOUTS = ("Forget it, I am done here.", "I refuse to talk to you any longer.", "Enough, goodbye.")


def write_opening(case: Case, rng: random.Random) -> str:
    """Writes the first message. Customers who only give feedback say so at once; others may show their demand later."""
    words = [
        rng.choice(_GREETINGS.get(case.style, ("",))),
        _fill_template(rng.choice(_OPENINGS[case.complaint]), case, rng),
    ]
    if case.customer.demand == "feedback_focus" or rng.random() < 0.3:
        words.append(rng.choice(_STANCES[case.customer.demand]))
    return " ".join(filter(None, words))


def write_answer(case: Case, before: Mood, after: Mood, events: frozenset[str], rng: random.Random) -> str:
    """Writes the next message of a conversation that goes on: the reaction to the strongest event, and a stance."""
    reactions = _list_reactions(before, after, events)
    words = [rng.choice(_REACTIONS[reactions[0]])]
    if "evidence" in reactions:
        words.append(_fill_template(rng.choice(_PICTURES), case, rng))
    if "agreed" not in reactions:
        words.append(rng.choice(_STANCES[case.customer.demand]))
    return " ".join(words)


def write_farewell(rating: int, rng: random.Random) -> str:
    """Writes the last message, with the rating (1..5)."""
    return f"{rng.choice(_FAREWELLS[rating])} [end:{rating}]"


def write_walkout(rng: random.Random) -> str:
    """Writes the last message of a customer who gives up."""
    return f"{rng.choice(_WALKOUTS)} [quit]"


def _list_reactions(before: Mood, after: Mood, events: frozenset[str]) -> Sequence[str]:
    happened = {
        "unbacked": "unbacked" in events,
        "promise": "promise" in events,
        "spam": "spam" in events,
        "repeat": "repeat" in events,
        "agreed": after.deal == 2 > before.deal,
        "asked_again": "ask" in events and before.evidence == 2,
        "refused_evidence": "ask" in events and after.evidence < 2,
        "refused_offer": "offer" in events and after.deal == 3,
        "early_offer": "offer" in events and after.deal == 1,
        "evidence": after.evidence == 2 > before.evidence,
        "unconvinced": "offer" in events and after.deal == 0,
        "made_up": "explain_false" in events,
        "empty": "apology" in events,
        "dismissed": "close" in events,
        "long": "long" in events,
        "listened": after.heard > before.heard,
        "noted": after.noted > before.noted,
        "facts": after.facts > before.facts,
    }
    return [name for name, did in happened.items() if did] or [""]


def _fill_template(template: str, case: Case, rng: random.Random) -> str:
    return template.format(item=rng.choice(case.items), merchant=case.merchant, problem=COMPLAINTS[case.complaint][0])
