import sys, json, re, random
import numpy as np
from models import tokenizer as tokenizers
from cmpo.training.exercises import make_exercises
from rollouts.types import Message
out, vocab, path = sys.argv[1], int(sys.argv[2]), sys.argv[3]
rows = [json.loads(l)["messages"] for l in open(path)]
tok = tokenizers.train_tokenizer((m["content"] for r in rows for m in r), vocab)
def marks(i, text, sysm):
    spans = []
    rec = re.search(r"record: (.*)", sysm)[1]
    cut = text.find("</think>")
    for h in re.finditer(re.escape(rec), text, re.I): spans.append((h.start(), h.end(), 3 if h.start() < cut else 2))
    if i == 2:
        h = re.search(r"(Late|Cold|Spilled|Missing|Bad taste|Raw), (for|against|silent|beside)\.", text); spans.append((h.start(1), h.end(1), 4))
    h = re.search(r"Plan: (.*?)\.", text); spans.append((h.start(1), h.end(1), 5))
    h = re.search(r"Done: (.*?)\.", text); spans.append((h.start(1), h.end(1), 6))
    h = re.search(r"listen", text[:cut])
    if h: 
        q = re.search(r"<response>(.*?[.?!])", text); spans.append((q.start(1), q.end(1), 7))
    return spans
def encode(messages):
    ids, mask, copy, first = [], [], [], []
    sysm = messages[0]["content"]
    for i, m in enumerate(messages):
        a = m["role"] == "assistant"; text = m["content"]; body = tok.encode(text)
        spans = marks(i, text, sysm) if a and len(messages) > 2 else []
        pos, last = 0, None
        for t in body:
            s, e = pos, pos + len(tok.decode([t])); pos = e
            sp = next((x for x in spans if s < x[1] and e > x[0]), None)
            copy.append(sp[2] if sp else 0); first.append(bool(sp and sp != last)); last = sp
        ids += body + [0]; mask += [a] * (len(body) + 1); copy.append(0); first.append(False)
    return ids, mask, copy, first
def save(name, rows):
    enc = [encode(r) for r in rows]; L = [len(e[0]) for e in enc]; print(name, len(L), np.mean(L), max(L))
    np.savez_compressed(name, tokens=np.concatenate([e[0] for e in enc]).astype(np.int16), mask=np.concatenate([e[1] for e in enc]).astype(bool), copy=np.concatenate([e[2] for e in enc]).astype(np.int8), first=np.concatenate([e[3] for e in enc]).astype(bool), lengths=np.array(L, np.int32))
save(out + ".npz", rows)
ex = make_exercises([[Message(m["role"], m["content"]) for m in r] for r in rows], 0)
save(out.replace("dlg", "exe") + ".npz", [[{"role": m.role, "content": m.content} for m in e] for e in ex])
json.dump([tok.decode([t]) for t in range(vocab)], open(out + ".npz.words", "w"))
def opening(r):
    facts = [l for l in r[0]["content"].splitlines() if re.fullmatch(r"[a-z][\w ]*: \S.*", l)]
    t = r[2]["content"].split("</think>")[0] + "</think>"
    for f in facts: t = t.replace(f + ". ", "")
    return [{"role": "user", "content": r[1]["content"]}, {"role": "assistant", "content": t}]
both = [[{"role": m.role, "content": m.content} for m in e] for e in ex]
ops = [opening(r) for r in rows]
print(ops[0], ops[5])
mixed = []
for k in range(0, len(rows), 32): mixed += both[k:k + 16] + ops[k:k + 32] + both[k + 16:k + 32]
save(out.replace("dlg", "mix") + ".npz", mixed)
many = json.load(open("/tmp/k/d/openings.json"))
mixed = []
b = both * 4
for k in range(0, 12000, 64): mixed += b[k // 64 * 12: k // 64 * 12 + 12] + many[k:k + 64]
save(out.replace("dlg", "many") + ".npz", both[:700] + mixed)
