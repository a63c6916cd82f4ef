import asyncio, itertools, numpy as np, sys, time
from configs import fds
from cmpo.training import collecting, tasks, demonstrations
from cmpo.training.clients import make_clients
from rollouts import domains
from models import tokenizer as tokenizers

config = fds.get_config()
domain = domains.load(config)
n = int(sys.argv[1]) if len(sys.argv) > 1 else 300
agent = domain.scripted_agent(config, "varied")
source, clients = tasks.open_source(config), make_clients(config)
t = time.time()
played = collecting.collect_dialogues(
    config, collecting.serve_agent(agent), source.train(0, n), repeats=1, seed=0, clients=clients
)
print("seconds", time.time() - t, "failed", sum(not d.ok for d in played))
conv = [demonstrations.from_dialogue(d) for d in played if d.ok]
texts = [m.content for c in conv for m in c]
for vocab in (1024, 2048):
    tok = tokenizers.train_tokenizer(iter(texts), vocab)
    lens = [sum(len(tok.encode(m.content)) + 5 for m in c) for c in conv]
    turns = [len(tok.encode(m.content)) for c in conv for m in c if m.role == "assistant"]
    print(
        vocab,
        "dialogue mean",
        np.mean(lens),
        "max",
        max(lens),
        "turn mean",
        np.mean(turns),
        "max",
        max(turns),
        "99%",
        np.percentile(turns, 99),
    )
print(
    "turns",
    np.mean([len(d.turns) for d in played]),
    "vouchers",
    np.mean([d.costs.max() if d.costs.size else 0 for d in played]) if hasattr(played[0], "costs") else "",
    "outcome",
    np.mean([d.outcome for d in played]),
)
for d in played[:0]:
    print("-----")
    for m in demonstrations.from_dialogue(d):
        print(f"[{m.role}] {m.content}")
