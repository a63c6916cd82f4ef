"""sft.py NAME key=value...: trains on demonstrations; prints loss and how well facts are copied on held-out ones."""

import sys, json, time, dataclasses, pathlib, re
import numpy as np, jax, jax.numpy as jnp, optax
from models import qwen2, tokenizer as tokenizers
from models.config import Qwen2Config
from cmpo.training import packing, demonstrations
from models import chat_template

name = sys.argv[1]
opt = dict(a.split("=", 1) for a in sys.argv[2:])
g = lambda k, d: type(d)(opt.get(k, d))
demo = g("demo", "/tmp/k/m/a/demonstrations.jsonl")
rows = [json.loads(l)["messages"] for l in open(demo)]
vocab = g("vocab", 1024)
tok = tokenizers.train_tokenizer((m["content"] for r in rows for m in r), vocab)


def encode(messages):
    ids, mask, copy = [], [], []
    sysm = messages[0]["content"]
    facts = [re.search(r"merchant: (.*)", sysm)[1], re.search(r"record: (.*)", sysm)[1]]
    for m in messages:
        a = m["role"] == "assistant"
        body = tok.encode(m["content"])
        text = m["content"]
        spans = []
        if a:
            for n, f in enumerate(facts):
                for h in re.finditer(re.escape(f), text, re.I):
                    spans.append((h.start(), h.end(), n + 1))
        # char positions of tokens
        pos, marks = 0, []
        for t in body:
            piece = tok.decode([t])
            s, e = pos, pos + len(piece)
            pos = e
            marks.append(next((n for (b, c, n) in spans if s < c and e > b), 0))
        ids += body + [tok.stop_id if hasattr(tok, "stop_id") else 0]
        mask += [a] * (len(body) + 1)
        copy += marks + [0]
    return np.array(ids), np.array(mask), np.array(copy)


enc = [encode(r) for r in rows]
print(
    name,
    "tokens",
    np.mean([len(e[0]) for e in enc]),
    "copied merchant/record tokens a dialogue",
    [float(np.mean([(e[2] == n).sum() for e in enc])) for n in (1, 2)],
    flush=True,
)
rng = np.random.default_rng(0)
held, train = enc[:96], enc[96:]
L = g("length", 1280)


def pack(items):
    out, cur = [], []
    for e in items:
        if sum(len(c[0]) for c in cur) + len(e[0]) > L:
            out.append(cur)
            cur = []
        cur.append(e)
    out.append(cur)
    T = np.zeros((len(out), L), np.int32)
    S = T.copy()
    P = T.copy()
    M = np.zeros((len(out), L), bool)
    C = T.copy()
    for i, cs in enumerate(out):
        at = 0
        for j, (a, m, c) in enumerate(cs):
            n = len(a)
            sl = slice(at, at + n)
            T[i, sl] = a
            S[i, sl] = j + 1
            P[i, sl] = np.arange(n)
            M[i, sl] = m
            C[i, sl] = c
            at += n
    return T, S, P, M, C


cfg = Qwen2Config(
    vocab_size=vocab,
    hidden_size=g("hidden", 128),
    intermediate_size=g("mlp", 384),
    num_layers=g("layers", 4),
    num_heads=g("heads", 2),
    num_kv_heads=g("kv", 1),
    rope_theta=g("theta", 1e6),
    initializer_range=g("init", 0.08),
    max_positions=2048,
)
params = qwen2.init(cfg, jax.random.key(g("seed", 0)))
steps, batch = g("steps", 1800), g("batch", 1)
lr = g("lr", 3e-3)
sched = (
    optax.join_schedules([optax.linear_schedule(0, lr, 30), optax.cosine_decay_schedule(lr, steps - 30, 0.1)], [30])
    if g("cosine", 1)
    else optax.linear_schedule(0, lr, 30)
)
tx = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(sched, b1=0.9, b2=g("b2", 0.999), weight_decay=0.0))
st = tx.init(params)
cw = g("copyweight", 1.0)


def loss(p, T, S, P, M, W):
    if g("all", 0):
        M = S > 0
    lp, _ = qwen2.token_logprobs(cfg, p, T, mask=M, positions=P, segment_ids=S)
    return -jnp.sum(lp * M * W) / jnp.sum(M * W)


@jax.jit
def step(p, st, T, S, P, M, W):
    l, gr = jax.value_and_grad(loss)(p, T, S, P, M, W)
    u, st = tx.update(gr, st, p)
    return optax.apply_updates(p, u), st, l


@jax.jit
def right(p, T, S, P):
    return jnp.argmax(qwen2.forward(cfg, p, T, positions=P, segment_ids=S), -1)


H = pack(held)


def evaluate(p):
    hit = {1: [], 2: []}
    al = []
    for i in range(0, len(H[0]), 4):
        T, S, P, M, C = (x[i : i + 4] for x in H)
        r = np.asarray(right(p, T, S, P))
        ok = np.zeros_like(M)
        ok[:, 1:] = r[:, :-1] == T[:, 1:]
        for n in hit:
            hit[n] += list(ok[C == n])
        al += list(ok[M])
    return f"tokens right {np.mean(al):.3f}, merchant {np.mean(hit[1]):.3f}, record {np.mean(hit[2]):.3f}"


packed = None
order = []
t0 = time.time()
ls = []
busy = 0
for k in range(steps):
    if len(order) < batch:
        perm = rng.permutation(len(train))
        packed = pack([train[i] for i in perm])
        order = list(range(len(packed[0]) - 1))
    ix = [order.pop() for _ in range(batch)]
    T, S, P, M, C = (x[ix] for x in packed)
    W = np.where(C > 0, cw, 1.0).astype(np.float32)
    params, st, l = step(params, st, T, S, P, M, W)
    ls.append(float(l))
    if (k + 1) % g("every", 300) == 0:
        print(
            f"{name} {k + 1} {time.time() - t0:.0f}s cpu {time.process_time():.0f} loss {np.mean(ls[-100:]):.3f} | {evaluate(params)}",
            flush=True,
        )
