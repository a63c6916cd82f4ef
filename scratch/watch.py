import json, sys

rows = [json.loads(l) for l in open(sys.argv[1] + "/metrics.jsonl")]
rows = [d for d in rows if d["phase"] == "rl"]
n = int(sys.argv[2]) if len(sys.argv) > 2 else 1
for i in range(0, len(rows), n):
    c = rows[i : i + n]
    m = lambda k: sum((d.get(k) or 0) for d in c) / len(c)
    print(
        c[-1]["step"],
        " ".join(
            f"{k}={m(k):.3f}"
            for k in (
                "satisfaction",
                "process_reward",
                "finish_rate",
                "voucher_rate",
                "lambda",
                "turns_mean",
                "kl",
                "entropy",
            )
        ),
        "s",
        round(sum(sum(d["seconds"].values()) for d in c) / len(c), 1),
        c[-1]["seconds"],
    )
