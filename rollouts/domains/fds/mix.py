"""How often which customer comes: levels of cooperation, demands given the level, what the record says.

Source of the level counts and of P(demand | level): arXiv 2602.22697 and the authors' released records.
"""

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

SUPPORT_WEIGHTS = {True: 5, False: 3, None: 2}
"""How often the record supports or contradicts a complaint, or says nothing of it."""

BESIDE_SHARE = 0.5
"""How often a record that says nothing of the complaint is about something else; it is empty else."""
