"""A synthetic run: make_run.py FOLDER STEPS GROUPS SIZE [fault] — numbers and dialogues as a run could leave them."""

import json, math, pathlib, random, sys
import numpy as np
from cmpo.run.log import RunLog
from tests.builders.dialogues import COSTS, dialogue, task, turn
from rollouts.domain import Measure

folder, steps, groups, size = pathlib.Path(sys.argv[1]), *map(int, sys.argv[2:5])
fault = sys.argv[5] if len(sys.argv) > 5 else ""
seed = 7 if len(sys.argv) <= 6 else int(sys.argv[6])
rng = random.Random(seed)
folder.mkdir(parents=True, exist_ok=True)
config = json.load(open("/tmp/k/smoke_run/config.json"))
config["name"] = folder.name
(folder / "config.json").write_text(json.dumps(config))
target = config["pid"]["target"]
target = target if not isinstance(target, dict) else target["voucher"]
demands = ["refund_priority", "refund_insistence", "compensation_flexible", "information"]
complaints = ["late delivery", "missing items", "not fresh or undercooked", "wrong order"]
user = [
    "Where is my order? It should have been here at seven.",
    "This is not what I asked for; the box was open and half of it was missing.",
    "I want my money back, nothing else will do.",
    "Well, what can you do about it then? I have waited for an hour.",
    "The courier left it with the neighbour and now it is cold.",
]
words = "I understand how annoying this is and I am sorry about it let me look at the record of your order with the merchant could you send me a picture of what arrived so that we can settle this quickly".split()
lam, sm = 0.0, 0.6
log = RunLog(folder, COSTS)


class NoBoard:
    def add_scalar(self, *a):
        pass

    def flush(self):
        pass

    def close(self):
        pass


log._open_tensorboard = lambda: NoBoard()
import os

os.fsync = lambda fd: None
sft = 20
for s in range(1, sft + 1):
    log.write(
        {
            "step": s,
            "phase": "sft",
            "loss": 6 * math.exp(-s / 8) + rng.gauss(0, 0.1) + 1,
            "entropy": 5 * math.exp(-s / 10) + 1,
            "grad_norm": 2 + rng.random(),
            "updates_skipped": 0,
            "tokens_per_second": 2000 + rng.gauss(0, 100),
            "seconds": {"update": 0.6},
        }
    )
for n in range(1, steps + 1):
    step, p = sft + n, n / steps
    batch = []
    for g in range(groups):
        t = task(
            f"hard-train-0-{(n - 1) * groups + g}",
            level=1 + rng.randrange(5),
            demand=rng.choice(demands),
            complaint=rng.choice(complaints),
            record=rng.choice(
                ["delivered 48 minutes late", "all items scanned at pickup", "kitchen reported an oven fault"]
            ),
        )
        if len(sys.argv) > 5:
            rng2 = random.Random((n - 1) * groups + g)
        for i in range(size):
            turns = []
            k = 1 + rng.randrange(4) + (rng.random() < 0.5)
            give = rng.random() < (sm if True else 0)
            for j in range(k):
                said = " ".join(rng.choice(words) for _ in range(rng.randrange(8, 30))).capitalize() + "."
                if fault == "copy" and rng.random() < p * p:
                    said = "I am very sorry, I have passed this on to my colleagues and they will call you back."
                full = fault == "judge" and n >= 60
                sc = {
                    x: 1.0 if full else rng.choice([0, 0.5, 1, 1] if rng.random() < p else [0, 0, 0.5, 1])
                    for x in ("persona", "stage", "rules", "quality")
                }
                turns.append(
                    turn(
                        sum(sc.values()) / 4,
                        said=rng.choice(user) if j else user[g % 5],
                        action="voucher" if give and j == k - 1 else "chat",
                        ids=range(rng.randrange(10, 60)),
                        scores=tuple(sc.items()),
                        response=said,
                        think=" ".join(rng.choice(words) for _ in range(10)),
                        reason="The reply fits the stage and keeps to the rules."
                        if sc["rules"]
                        else "It promises what the record does not support.",
                    )
                )
            bad = rng.random() < 0.1 * (1 - p)
            if rng.random() < 0.01:
                batch.append(
                    dialogue(
                        *turns[:1],
                        task=t,
                        index=i,
                        outcome=0.0,
                        failure="user_timeout",
                        failure_message="POST http://127.0.0.1/v1/chat/completions: no answer in 120 s",
                    )
                )
                continue
            batch.append(
                dialogue(
                    *turns,
                    task=t,
                    index=i,
                    outcome=-3.0
                    if bad
                    else float(min(5, max(1, round(2.2 + 1.2 * p + 0.8 * give + rng.gauss(0, 0.9))))),
                    end="malformed" if bad else rng.choice(["rated"] * 5 + ["quit"]),
                    last_words="Fine, thank you. [end:4]",
                )
            )
    ok = [d for d in batch if d.ok]
    rate = float(np.mean([d.cost[0] for d in ok]))
    obj = float(np.mean([max(d.outcome, 0) for d in ok]))
    record = {
        "step": step,
        "phase": "rl",
        "turns_mean": float(np.mean([len(d.turns) for d in ok])),
        "satisfaction": obj,
        "process_reward": float(np.mean([np.mean([x.process_reward for x in d.turns]) for d in ok])),
        "finish_rate": float(np.mean([d.success for d in ok])),
        "voucher_rate": rate,
        "ends": {e: sum(d.end == e for d in ok) for e in ("rated", "quit", "malformed") if any(d.end == e for d in ok)},
        "dialogues_ok": len(ok),
        "dialogues_failed": {"user_timeout": len(batch) - len(ok)} if len(ok) < len(batch) else {},
        "dialogues_replaced": {},
        "new_tokens": sum(len(x.ids) for d in batch for x in d.turns),
        "clip_fraction": 0.02 + 0.05 * rng.random() * p,
        "entropy": 2.5 - p + rng.gauss(0, 0.05),
        "grad_norm": 0.5 + rng.random(),
        "kl": 0.02 * n / steps * 10 + 0.01 * rng.random(),
        "logprob_gap_max": 3e-6 * (1 + rng.random()),
        "loss": rng.gauss(0, 0.02),
        "policy_loss": rng.gauss(0, 0.02),
        "ratio_max": 1.5 + rng.random(),
        "ratio_mean": 1 + rng.gauss(0, 0.001),
        "updates_skipped": 0,
        "lambda": lam,
        "effective_price": lam * 1.6,
        "effective_price_low": lam * 1.2,
        "effective_price_high": lam * 2.4,
        "judge_correlation": {x: 0.4 + rng.gauss(0, 0.1) for x in ("persona", "stage", "rules", "quality")},
        "tokens_per_second": 900 + rng.gauss(0, 40),
        "spent": {
            "user_calls": 321 * n,
            "user_tokens": 108900 * n,
            "user_cost": 0.0,
            "judge_calls": 300 * n,
            "judge_tokens": 90000 * n,
            "judge_cost": 0.01 * n,
        },
        "seconds": {"sample": 4 + rng.random(), "reference": 0.3, "update": 2 + rng.random() * 0.3},
        "alarms": {},
    }
    sm2 = 0.9 * (record.get("x", 0) or sm) + 0.1 * rate
    record["voucher_rate_smoothed"] = sm2
    lam = max(0.0, min(5.0, lam + (-1 if fault == "sign" else 1) * 0.15 * (sm2 - target)))
    sm = max(0.02, min(0.95, sm - (0.05 * (lam / 1.5) * (sm - 0.05) - 0.002)))
    if lam == 0 and fault == "sign":
        sm = min(0.95, sm + 0.01)
    if n in (steps // 5, steps // 5 + 1):
        record["alarms"] = {
            "voucher": "in 20 steps the multiplier rose from 0.10 to 0.70, and the mean went from 60% to 58%"
        }
    log.write(record)
    log.write_transcripts(step, batch)
