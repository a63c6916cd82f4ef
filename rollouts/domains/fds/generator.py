"""The gym: food-delivery after-sales disputes (FDS). Personas, demands, orders, difficulty; seeded and endless."""

import hashlib
import itertools
import json
import random
from collections.abc import Iterator
from importlib import resources

from rollouts.domains.fds.embedded import case as cases
from rollouts.domains.fds.embedded import population
from rollouts.domains.fds.embedded.latent import Customer
from rollouts.domains.fds.mix import BESIDE_SHARE, DEMAND_WEIGHTS, LEVEL_COUNTS, SUPPORT_WEIGHTS
from rollouts.domains.fds.orders import draw_order
from rollouts.domains.fds.scenario import COMPLAINTS, DEMANDS, LEVELS, Order, Persona, Scenario, write_items
from rollouts.domains.fds.shift import NO_SHIFT, Shift
from rollouts.seeds import fold

DEMAND_TEXTS = {
    "refund_insistence": "You want your money back and nothing else; no voucher or apology replaces a refund. You do "
    "not say so at once, but insist on it as the conversation goes on.",
    "refund_priority": "You would rather have a refund. If an honest agent explains that this is impossible, you can "
    "be won over to a voucher.",
    "compensation_flexible": "You hope for some compensation and any kind will do. You do not say so: you describe the "
    "problem and wait for what the agent proposes.",
    "feedback_focus": "You want the problem to be heard and passed on. You ask for no compensation; if some comes, it "
    "is a pleasant surprise.",
}

_COMMUNICATION_STYLES = ("blunt and confrontational", "terse", "plain", "polite", "warm and detailed")
"""From the least cooperative to the most; a persona draws near its level."""

_TRAITS = {  # trait of the persona -> the customer's trait that it tells -> value -> texts for levels 1-2, 3, 4-5
    "information_disclosure": (
        "discloses",
        {
            True: ("blurts everything out", "open", "volunteers details"),
            False: ("gives away as little as possible", "reserved", "answers when asked"),
        },
    ),
    "problem_solving": (
        "wants",
        {
            "steps": ("demands to know every step", "likes a plan", "constructive, step by step"),
            "short": ("demands results at once", "pragmatic and brief", "easy to please, without detours"),
        },
    ),
    "emotional_style": (
        "temper",
        {
            "flares": ("hostile and loud", "irritable", "lively, quick to flare up"),
            "silent": ("cold, goes silent when angry", "tense, goes silent when angry", "calm, goes silent when hurt"),
        },
    ),
}


def fill_prompt(name: str, **values: str) -> str:
    """Fills the prompt template `rollouts/domains/fds/prompts/{name}.txt`."""
    return resources.files(__package__).joinpath("prompts", f"{name}.txt").read_text(encoding="utf-8").format(**values)


def prompt_hashes() -> dict[str, str]:
    """SHA-256 of each prompt template and of the demands' texts: what a result was measured with."""
    files = resources.files(__package__).joinpath("prompts").iterdir()
    texts = {file.name.removesuffix(".txt"): file.read_bytes() for file in files}
    texts["demands"] = json.dumps(DEMAND_TEXTS).encode()
    return {name: hashlib.sha256(text).hexdigest() for name, text in sorted(texts.items())}


def case_values(scenario: Scenario) -> dict[str, str]:
    """The customer and the order in words, as the user's and the judge's prompts have them."""
    persona, order, customer = scenario.persona, scenario.order, find_customer(scenario)
    support = next(text for text, supports in cases.SUPPORT.items() if supports is order.supported)
    if support == "the record is silent" and order.record.kind != "silent" and order.record.text:
        support = "the record is about something else"
    return {
        **vars(persona),
        "level": str(persona.level),
        "level_name": LEVELS[persona.level - 1],
        "details": _name_value(cases.DETAILS, customer.discloses),
        "solution": _name_value(cases.SOLUTIONS, customer.wants),
        "anger": _name_value(cases.TEMPERS, customer.temper),
        "way": scenario.shift.words,
        "demand": scenario.demand,
        "worth": f"{customer.worth // 10}.{customer.worth % 10}",
        "claim": _name_value(cases.CLAIMS, customer.honest),
        "items": write_items(order.items),
        "merchant": order.merchant,
        "ordered": order.ordered or cases.UNKNOWN,
        "delivered": order.delivered or cases.UNKNOWN,
        "courier": order.courier or cases.UNKNOWN,
        "complaint": order.complaint,
        "complaint_text": COMPLAINTS[order.complaint],
        "tag": order.tag or cases.UNKNOWN,
        "record": order.record.text or cases.NO_RECORD,
        "support": support,
    }


def user_prompt(scenario: Scenario) -> str:
    """The user simulator's system prompt."""
    return fill_prompt("user", **case_values(scenario), demand_text=DEMAND_TEXTS[scenario.demand])


def find_customer(scenario: Scenario) -> Customer:
    """Returns the customer of a scenario.

    A persona that was not dealt here, as of the released records, has traits in words of its own: what they mean for
    the embedded customer is drawn by a hash of the words, as often as `population` says.
    """
    persona = scenario.persona
    traits = {}
    for field, (name, texts) in _TRAITS.items():
        told = getattr(persona, field)
        known = [value for value, words in texts.items() if told in words]
        first, second = texts
        chance = population.share_trait(name, first, persona.level)
        drawn = first if random.Random(fold(0, name, told)).random() < chance else second
        traits[name] = known[0] if known else drawn
    return Customer(
        level=persona.level,
        demand=scenario.demand,
        supported=scenario.order.supported,
        worth=scenario.worth,
        honest=scenario.honest,
        **traits,
    )


def deal_scenarios(
    seed: int, *, difficulty: str = "hard", split: str = "train", start: int = 0, shift: Shift = NO_SHIFT
) -> Iterator[Scenario]:
    """Deals scenarios without end, beginning with number `start`; the same seed deals the same ones.

    They come in blocks (128 in `train`, 256 in `test`) that hold exactly the method's counts of cooperation levels,
    and demands as near to P(demand | level) as whole numbers allow. Within a block they are spread evenly, so that
    small batches see about the same mix, and chance in it adds little noise to the observed voucher rate.
    An order that is dealt in one split is never dealt in the other, whatever the seeds (`split_of`). A `shift` changes
    the words and facts, and neither who calls nor why.
    """
    if (difficulty, split) not in LEVEL_COUNTS:
        known = sorted({name for name, _ in LEVEL_COUNTS})
        raise ValueError(f"config.data.difficulty: expected one of {known}, got {difficulty!r} (split {split!r})")
    counts = LEVEL_COUNTS[difficulty, split]
    size, number = sum(counts), start
    while True:
        block = number // size
        cells = _deal_block(counts, random.Random(fold(seed, "block", split, difficulty, block)))
        for level, demand in cells[number - block * size :]:
            rng = random.Random(fold(seed, "scenario", split, difficulty, number))
            yield draw_scenario(rng, f"{difficulty}-{split}-{seed}-{number}", level, demand, split, shift)
            number += 1


def split_of(order: Order) -> str:
    """Returns the split of an order, whichever customer complains: "test" for a tenth of the orders, else "train".

    It follows from what the agent is shown of the order, so that no prompt of a test scenario is ever trained on.
    """
    return "train" if fold(0, "split", *itertools.chain(*order.signals)) % 10 else "test"


def draw_scenario(
    rng: random.Random, name: str, level: int, demand: str, split: str, shift: Shift = NO_SHIFT
) -> Scenario:
    """Draws the other traits, the complaint and an order of `split` for one cooperation level (1..5) and demand.

    Whatever the shift, the same `rng` draws the same customer and complaint.
    """
    place = min(4, max(0, level - 1 + rng.choice((-1, 0, 0, 0, 1))))
    complaint = rng.choice(tuple(COMPLAINTS))
    supported = rng.choices(tuple(SUPPORT_WEIGHTS), weights=tuple(SUPPORT_WEIGHTS.values()))[0]
    says = {True: "supports", False: "contradicts", None: "beside" if rng.random() < BESIDE_SHARE else "silent"}[
        supported
    ]
    customer = population.draw_customer(level, demand, supported, rng)
    texts = {
        field: texts[getattr(customer, trait)][(0, 0, 1, 2, 2)[level - 1]] for field, (trait, texts) in _TRAITS.items()
    }
    persona = Persona(level=level, communication_style=_COMMUNICATION_STYLES[place], **texts)
    order = draw_order(complaint, says, customer.honest, rng, shift)
    while split_of(order) != split:
        order = draw_order(complaint, says, customer.honest, rng, shift)
    signals = "\n".join(f"{key}: {value}" for key, value in order.signals)
    prompt = fill_prompt("agent", signals=signals).strip()
    return Scenario(name, persona, demand, order, prompt, customer.worth, customer.honest, shift)


def _name_value(names: dict[str, object], value: object) -> str:
    return next(name for name, meant in names.items() if meant == value)


def _deal_block(counts: tuple[int, ...], rng: random.Random) -> list[tuple[int, str]]:
    """Deals one block of (level, demand): systematic draws over the joint distribution, spread by the golden ratio."""
    size = sum(counts)
    cells, edges, mass = [], [], 0.0
    for level, count in enumerate(counts, start=1):
        weights = [DEMAND_WEIGHTS[demand][level - 1] for demand in DEMANDS]
        for demand, weight in zip(DEMANDS, weights, strict=True):
            mass += count * weight / sum(weights)
            cells.append((level, demand))
            edges.append(mass)
    offset = rng.random()
    deck = [
        next(cell for cell, edge in zip(cells, edges, strict=True) if draw + offset < edge + 1e-9)
        for draw in range(size)
    ]
    deck.sort(key=lambda cell: DEMANDS.index(cell[1]))  # demands matter most to a batch's voucher rate
    golden = (5**0.5 - 1) / 2
    shift = rng.random()
    places = sorted(range(size), key=lambda place: (place * golden + shift) % 1)
    block = [None] * size
    for card, place in enumerate(places):
        block[place] = deck[card]
    return block
