import json, sys, glob, collections
from rollouts.domains.fds import scenario as sc, generator, turn_format
from rollouts.domains.fds.embedded import reading, case as cases

files = sorted(glob.glob(sys.argv[1] + "/transcripts/step_*.jsonl"))[-int(sys.argv[2]) :]
cnt = collections.Counter()
turns = 0
dl = 0
show = int(sys.argv[3]) if len(sys.argv) > 3 else 0
anyc = collections.Counter()
out = []
for f in files:
    for l in open(f):
        r = json.loads(l)
        if r["failure"]:
            continue
        s = sc.read_description(r["task"])
        case = cases.read_case(generator.user_prompt(s))
        said = []
        issued = "no"
        dl += 1
        seen = set()
        out.append(r["outcome"])
        for t in r["turns"]:
            if not t["action"]:
                cnt["malformed"] += 1
                break
            issued = "this turn" if t["action"] == "voucher" else "no" if issued == "no" else "earlier"
            resp = turn_format.hear(t["response"])
            ev = reading.read_reply(resp, said, case, issued)
            said.append(resp)
            cnt.update(ev)
            turns += 1
            seen |= ev
            if show > 0 and ev & {"wrong_fact", "explain_false", "not_understood", "rude", "negated", "unbacked"}:
                show -= 1
                print(
                    sorted(ev),
                    "|",
                    [str(i.name) for i in case.items],
                    case.merchant,
                    "|",
                    case.record.text,
                    "|",
                    case.complaint,
                    "\n   ",
                    t["think"],
                    "\n   ",
                    resp,
                )
        anyc.update(seen)
print(dl, "dialogues", turns, "turns", "mean outcome", sum(out) / len(out))
print({k: round(v / turns, 3) for k, v in cnt.most_common()})
print("per dialogue", {k: round(v / dl, 3) for k, v in anyc.most_common()})
