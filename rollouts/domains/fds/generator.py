"""The gym: food-delivery after-sales disputes (FDS). Personas, demands, orders, difficulty; seeded and endless.

Source of the level counts and of P(demand | level): arXiv 2602.22697 and the authors' released records.
"""

import hashlib
import itertools
import json
import random
from collections.abc import Iterator
from importlib import resources

from rollouts.domains.fds.scenario import DEMANDS, LEVELS, Order, Persona, Scenario
from rollouts.seeds import fold

LEVEL_COUNTS = {
    ("hard", "train"): (12, 40, 32, 32, 12),  # in every block of 128, as in the released batches
    ("normal", "train"): (12, 12, 41, 38, 25),
    ("hard", "test"): (25, 78, 64, 64, 25),  # of 256
    ("normal", "test"): (25, 25, 79, 76, 51),
}

DEMAND_WEIGHTS = {  # P(demand | level 1..5), normalised over the demands
    "refund_insistence": (0.70, 0.60, 0.40, 0.40, 0.50),
    "refund_priority": (0.15, 0.10, 0.15, 0.15, 0.20),
    "compensation_flexible": (0.10, 0.15, 0.20, 0.20, 0.10),
    "feedback_focus": (0.05, 0.15, 0.25, 0.25, 0.20),
}

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

COMPLAINTS = {  # what went wrong: (as the customer means it, a record that supports it, a record that contradicts it)
    "late delivery": ("the order came far too late", "delivered 48 minutes late", "delivered on time"),
    "food temperature": (
        "the food arrived cold",
        "courier held the food 40 minutes",
        "delivered 8 minutes after pickup",
    ),
    "damaged packaging": (
        "the food was spilled",
        "courier reported a spilled bag",
        "handover photo shows a sealed bag",
    ),
    "missing items": ("part of the order is missing", "merchant packed one item less", "all items scanned at pickup"),
    "taste below expectations": ("it tasted awful", "5 taste complaints today", "no other taste complaints today"),
    "not fresh or undercooked": (
        "it was raw inside",
        "kitchen reported an oven fault",
        "kitchen temperature log normal",
    ),
}

SUPPORT_WEIGHTS = {True: 5, False: 3, None: 2}  # how often the record supports, contradicts or ignores a complaint
_SILENT = "no abnormal report"

_DISHES = (
    "Chicken Biryani", "Beef Burger", "Margherita Pizza", "Pad Thai", "Falafel Wrap", "Caesar Salad", "Sushi Set",
    "Lamb Kebab", "Fried Chicken", "Mushroom Risotto", "Fish Tacos", "Noodle Soup", "Grilled Salmon", "Veggie Curry",
)  # fmt: skip
_SIDES = ("Fries", "Mango Lassi", "Cola", "Garlic Bread", "Ice Tea", "Brownie", "Spring Rolls", "Coleslaw")
_MERCHANTS = (
    "Golden Wok", "Casa Verde", "Burger Barn", "Spice Route", "Blue Harbour", "Corner Kitchen", "Mama Rosa",
    "Green Bowl", "Samaka Grill", "Noodle House",
)  # fmt: skip
_COURIER = (
    "I am nearby.",
    "Left it at your door.",
    "Arriving soon.",
    "Traffic is heavy.",
    "Which floor?",
    "Delivered.",
)

_TRAITS = {  # trait -> from the least cooperative to the most; a persona draws near its level
    "communication_style": ("blunt and confrontational", "terse", "plain", "polite", "warm and detailed"),
    "information_disclosure": ("refuses details", "reserved", "answers when asked", "open", "volunteers details"),
    "problem_solving": ("demands results at once", "stubborn", "pragmatic", "willing to compromise", "constructive"),
    "emotional_style": ("hostile", "irritable", "tense", "calm", "cheerful"),
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


def order_values(order: Order) -> dict[str, str]:
    """The order's facts in words, as the user's and the judge's prompts have them."""
    support = {True: "the record supports it", False: "the record contradicts it", None: "the record is silent"}
    return {
        "items": order.items,
        "merchant": order.merchant,
        "complaint": order.complaint,
        "complaint_text": COMPLAINTS[order.complaint][0],
        "record": order.record or "nothing unusual on record",
        "support": support[order.supported],
    }


def persona_values(persona: Persona) -> dict[str, str]:
    """The persona in words, as the user's and the judge's prompts have it."""
    return {**vars(persona), "level": str(persona.level), "level_name": LEVELS[persona.level - 1]}


def user_prompt(scenario: Scenario) -> str:
    """The user simulator's system prompt."""
    return fill_prompt(
        "user",
        **persona_values(scenario.persona),
        **order_values(scenario.order),
        demand=scenario.demand,
        demand_text=DEMAND_TEXTS[scenario.demand],
    )


def deal_scenarios(seed: int, *, difficulty: str = "hard", split: str = "train", start: int = 0) -> Iterator[Scenario]:
    """Deals scenarios without end, beginning with number `start`; the same seed deals the same ones.

    They come in blocks (128 in `train`, 256 in `test`) that hold exactly the method's counts of cooperation levels,
    and demands as near to P(demand | level) as whole numbers allow. Within a block they are spread evenly, so that
    small batches see about the same mix, and chance in it adds little noise to the observed voucher rate.
    An order that is dealt in one split is never dealt in the other, whatever the seeds (`split_of`).
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
            yield draw_scenario(rng, f"{difficulty}-{split}-{seed}-{number}", level, demand, split)
            number += 1


def split_of(order: Order) -> str:
    """Returns the split of an order, whichever customer complains: "test" for a tenth of the orders, else "train".

    It follows from what the agent is shown of the order, so that no prompt of a test scenario is ever trained on.
    """
    return "train" if fold(0, "split", *itertools.chain(*order.signals)) % 10 else "test"


def draw_scenario(rng: random.Random, name: str, level: int, demand: str, split: str) -> Scenario:
    """Draws the persona's other traits and an order of `split` for one cooperation level (1..5) and demand."""
    traits = {
        trait: styles[min(4, max(0, level - 1 + rng.choice((-1, 0, 0, 0, 1))))] for trait, styles in _TRAITS.items()
    }
    order = _draw_order(rng)
    while split_of(order) != split:
        order = _draw_order(rng)
    signals = "\n".join(f"{key}: {value}" for key, value in order.signals)
    return Scenario(name, Persona(level=level, **traits), demand, order, fill_prompt("agent", signals=signals).strip())


def _draw_order(rng: random.Random) -> Order:
    complaint = rng.choice(tuple(COMPLAINTS))
    _, supporting, contradicting = COMPLAINTS[complaint]
    supported = rng.choices(tuple(SUPPORT_WEIGHTS), weights=tuple(SUPPORT_WEIGHTS.values()))[0]
    record = {True: supporting, False: contradicting, None: _SILENT}[supported]
    items = [f"{rng.choice(_DISHES)}*1"]
    if rng.random() < 0.6:
        items.append(f"{rng.choice(_SIDES)}*{rng.choice((1, 2))}")
    merchant = rng.choice(_MERCHANTS)
    signals = (
        ("items", ",".join(items)),
        ("merchant", merchant),
        ("courier", rng.choice(_COURIER)),
        ("record", record),
        ("tag", complaint),
    )
    return Order(",".join(items), merchant, complaint, supported, record, signals)


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
