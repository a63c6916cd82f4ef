import sys, time, json, os
import numpy as np, jax, jax.numpy as jnp, optax
from models import qwen2
from models.config import Qwen2Config
def main(name, opt):
    g = lambda k, d: type(d)(opt.get(k, d))
    z = np.load(os.path.join(os.path.dirname(os.path.abspath(__file__)), g("data", "base1024") + ".npz"))
    vocab = int(g("data", "base1024")[-4:]); n = len(z["lengths"])
    cut = np.cumsum(z["lengths"])[:-1]
    parts = [np.split(z[k], cut) for k in ("tokens", "mask", "copy", "first")]
    enc = list(zip(*parts)); held, train = enc[:96], enc[96:][:g("demos", 10**6)]
    L, B, steps = g("length", 1280), g("batch", 1), g("steps", 3600)
    rng = np.random.default_rng(g("seed", 0))
    def pack(items):
        out, cur, used = [], [], 0
        for e in items:
            if used + len(e[0]) > L: out.append(cur); cur, used = [], 0
            cur.append(e); used += len(e[0])
        out.append(cur)
        T, S, P, C = (np.zeros((len(out), L), np.int32) for _ in range(4)); M, F = (np.zeros((len(out), L), bool) for _ in range(2))
        for i, cs in enumerate(out):
            at = 0
            for j, (a, m, c, f) in enumerate(cs):
                n = len(a); sl = slice(at, at + n); T[i, sl] = a; S[i, sl] = j + 1; P[i, sl] = np.arange(n); M[i, sl] = m; C[i, sl] = c; F[i, sl] = f; at += n
        return T, S, P, M, C, F
    rows = []
    have = 0
    while have < steps * B:
        p = pack([train[i] for i in rng.permutation(len(train))]); rows.append([x[:-1] for x in p]); have += len(p[0]) - 1
    data = [np.concatenate(x)[: steps * B].reshape(steps, B, L) for x in zip(*rows)]
    if g("pre", ""):
        z = np.load(os.path.join(os.path.dirname(os.path.abspath(__file__)), g("pre", "") + ".npz")); cut = np.cumsum(z["lengths"])[:-1]
        drills = list(zip(*[np.split(z[k], cut) for k in ("tokens", "mask", "copy", "first")]))[96:]
        p = pack(drills * 3)
        for x, y in zip(data, p): x[: g("presteps", 400)] = y[: g("presteps", 400) * B].reshape(-1, B, L)
        mix = g("mix", 0.0); n0 = g("presteps", 400)
        where = [i for i in range(n0, steps) if rng.random() < mix]
        for x, y in zip(data, p): x[where] = y[n0 * B:(n0 + len(where)) * B].reshape(-1, B, L)
    nc = g("copy", 0)
    if nc:
        def drill():
            T, S, P, M, C, F = (np.zeros((L,), x) for x in (np.int32, np.int32, np.int32, bool, np.int32, bool))
            at, k = 0, 0
            while at < L:
                n = int(rng.integers(40, 160)); A = rng.integers(4, vocab, n)
                cuts = np.sort(rng.choice(np.arange(1, n), max(1, n // 10), replace=False)); ps = [x for x in np.split(A, cuts)]
                rng.shuffle(ps); seq = list(A); m = [False] * n
                for x in ps: seq += list(x); m += [False] + [True] * (len(x) - 1)
                seq, m = seq[:L - at], m[:L - at]; k += 1
                T[at:at + len(seq)] = seq; M[at:at + len(seq)] = m; S[at:at + len(seq)] = k; P[at:at + len(seq)] = np.arange(len(seq)); at += len(seq)
            return T, S, P, M, C, F
        for i in range(nc):
            for b in range(B):
                for x, y in zip(data, drill()): x[i, b] = y
    cfg = Qwen2Config(vocab_size=vocab, hidden_size=g("hidden", 128), intermediate_size=g("mlp", 384), num_layers=g("layers", 4), num_heads=g("heads", 2), num_kv_heads=g("kv", 1), rope_theta=g("theta", 1e4), initializer_range=g("init", 0.08), max_positions=2048)
    params = qwen2.init(cfg, jax.random.key(g("seed", 0)))
    if g("plant", 1):
        from models import induction
        plain = params
        params = induction.plant_head(cfg, params)
        if g("plant", 1) == 2:   # only head 0 of each; head 1 is as drawn; zeros elsewhere small
            A, H, K = cfg.head_dim, cfg.num_heads, cfg.num_kv_heads
            at, pl = params["layers"]["attention"], plain["layers"]["attention"]
            for n, heads in (("q", H), ("k", K)):
                for leaf in ("kernel", "bias"):
                    at[n][leaf] = at[n][leaf].at[:2, ..., A:].set(pl[n][leaf][:2, ..., A:])
            q = g("quiet", 0.0)
            at["o"]["kernel"] = at["o"]["kernel"].at[:2, A:].set(q * pl["o"]["kernel"][:2, A:]).at[2:].set(q * pl["o"]["kernel"][2:])
            params["layers"]["mlp"]["down"]["kernel"] = q * plain["layers"]["mlp"]["down"]["kernel"]
    nparam = sum(x.size for x in jax.tree.leaves(params))
    lr = g("lr", 3e-3)
    sched = optax.join_schedules([optax.linear_schedule(0, lr, g("warm", 30)), optax.cosine_decay_schedule(lr, steps - 30, 0.1)], [g("warm", 30)])
    if g("muon", 0.0):
        from optax.contrib import MuonDimensionNumbers as D
        dims = jax.tree_util.tree_map_with_path(lambda q, x: D(1, 2) if q[-1].key == "kernel" and x.ndim == 3 else None, params)
        opt_ = optax.contrib.muon(lambda t: sched(t) * g("muon", 0.0) / lr, adam_b1=0.9, adam_b2=0.99, adam_learning_rate=sched, muon_weight_dimension_numbers=dims)
    else:
        opt_ = optax.adamw(sched, b1=0.9, b2=g("b2", 0.999), weight_decay=g("wd", 0.0))
    tx = optax.chain(optax.clip_by_global_norm(1.0), opt_)
    st = tx.init(params); cw, al = g("copyweight", 1.0), g("all", 0)
    def loss(p, x):
        T, S, P, M, C, F = x
        if al: M = S > 0
        W = jnp.where(C > 0, cw, 1.0) * M
        lp, _ = qwen2.token_logprobs(cfg, p, T, mask=M, positions=P, segment_ids=S)
        return -jnp.sum(lp * W) / jnp.sum(W)
    def one(carry, x):
        p, st = carry
        l, gr = jax.value_and_grad(loss)(p, x)
        u, st = tx.update(gr, st, p)
        return (optax.apply_updates(p, u), st), l
    run = jax.jit(lambda c, x: jax.lax.scan(one, c, x), donate_argnums=0)
    H = pack(held)
    right = jax.jit(lambda p, T, P, S: jnp.argmax(qwen2.forward(cfg, p, T, positions=P, segment_ids=S), -1))
    heldloss = jax.jit(lambda p, T, S, P, M: -jnp.sum(qwen2.token_logprobs(cfg, p, T, mask=M, positions=P, segment_ids=S)[0] * M) / jnp.sum(M))
    def evaluate(p):
        T, S, P, M, C, F = H
        r = np.asarray(right(p, T, P, S)); ok = np.zeros_like(M); ok[:, 1:] = r[:, :-1] == T[:, 1:]
        res = {"all": round(float(ok[M].mean()), 4), "nll": round(float(heldloss(p, T, S, P, M)), 4)}
        for kind, word in ((2, "record"), (3, "thought"), (4, "complaint"), (5, "plan"), (6, "done"), (7, "listen")):
            spans = []
            for i, j in zip(*np.nonzero(F & (C == kind))):
                k = j + 1
                while k < L and C[i, k] == kind and not F[i, k]: k += 1
                spans.append((ok[i, j], ok[i, j:k].all(), ok[i, j:k].mean()))
            if not spans: continue
            s = np.array(spans, float).mean(0)
            res[word] = [round(float(x), 3) for x in s]
        return res
    def show(p, count=40):
        words = json.load(open(os.path.join(os.path.dirname(os.path.abspath(__file__)), g("data", "base1024") + ".npz.words")))
        T, S, P, M, C, F = H
        r = np.asarray(right(p, T, P, S))
        for i, j in zip(*np.nonzero(F & (C == g('kind', 2)))):
            k = j + 1
            while k < L and C[i, k] == g('kind', 2) and not F[i, k]: k += 1
            if (r[i, j-1:k-1] != T[i, j:k]).any() and count > 0:
                count -= 1
                print("      ", " ".join(f"[{words[t]}]" if t == q else f"[{words[t]} <> {words[q]}]" for t, q in zip(T[i, j:k], r[i, j-1:k-1])), flush=True)
    K = g("every", 600); t0 = time.time(); carry = (params, st); hist = []
    for k in range(0, steps, K):
        carry, ls = run(carry, [jnp.asarray(x[k:k + K]) for x in data]); ls = float(np.mean(np.asarray(ls)[-100:]))
        if k == 0: t1 = time.time()
        e = evaluate(carry[0]); print(name, k + K, round(time.time() - t0), round(ls, 4), e, flush=True); hist.append((k + K, round(ls, 4), e))
    if g("show", 0): show(carry[0])
    print(json.dumps({"name": name, "opt": opt, "params": nparam, "compile+first": round(t1 - t0), "seconds": round(time.time() - t0), "rows": len(data[0])}), flush=True)
    for h in hist: print("   ", h[0], "loss", h[1], h[2], flush=True)
for line in open(sys.argv[1]):
    line = line.split("#")[0].split()
    if line:
        try: main(line[0], dict(a.split("=", 1) for a in line[1:]))
        except Exception as e: print(line, "FAILED", repr(e)[:500], flush=True)
