"""Sampling: beside Tunix's sampler and transformers' generate; over many turns; with users who take their time.

    python3 -m venv .bench && .bench/bin/pip install -e . -r benchmarks/requirements.txt
    .bench/bin/python -m benchmarks.sampling [--json=FILE]

1. 32 prompts of 256 tokens, 128 new tokens each, at temperature 1 (hidden 256, 6 layers, vocabulary 4,096, float32).
2. A dialogue of 8 turns (256 + 7 x 40 tokens in, 64 out) in one session, against computing the whole history each turn.
3. 64 dialogues of 4 turns (160, then 32 tokens in, 64 out) whose users take 0.5 s to answer: the wall time over the
   larger of the compute alone and one dialogue's waiting.

Each contender runs in a process of its own, once to compile and then REPEATS times; figures are medians.
"""

import asyncio
import statistics

import numpy as np

from benchmarks import contest

VOCABULARY, REPEATS = 4096, 5
PROMPTS, PROMPT, NEW = 32, 256, 128
LATENCY, DIALOGUES, TURNS = 0.5, 64, 4


def prompts() -> np.ndarray:
    """[PROMPTS, PROMPT] int32."""
    return np.random.default_rng(0).integers(0, VOCABULARY, (PROMPTS, PROMPT)).astype(np.int32)


def timed(work, repeats: int = REPEATS) -> float:
    """Median seconds of `work`, after one call to compile."""
    work()
    return statistics.median(contest.seconds(work) for _ in range(repeats))


def ours(path: str) -> dict:
    """`rollouts.engine.engine`, for all three."""
    from models import hf
    from rollouts.engine.engine import Engine
    from rollouts.engine.sampling import Sampling

    config, params = hf.load(path)

    def engine(**options) -> Engine:
        # The stop token is one that random weights hardly ever draw: every turn has its full length.
        layout = {"capacity": 1024, "rows": min(8, options["slots"]), "max_new_tokens": 64} | options
        made = Engine(config, 0, Sampling(**layout))
        made.load(params)
        return made

    async def dialogue(made: Engine, texts: list[np.ndarray], number: int, latency: float, *, again: bool = False):
        session, history = made.open(), np.zeros(0, np.int32)
        for place, ids in enumerate(texts):
            await asyncio.sleep(latency)
            if again:  # the whole history, in a session of its own
                session.close()
                made.load(params)
                session, ids = made.open(), np.concatenate([history, ids])
            turn = await session.generate(ids, seed=100 * number + place)
            history = np.concatenate([ids if again else np.append(history, ids), turn.ids])
        session.close()

    async def all_at_once(made: Engine, dialogues: list[list[np.ndarray]], latency: float = 0.0, **options) -> None:
        async with made:
            await asyncio.gather(*(dialogue(made, ids, n, latency, **options) for n, ids in enumerate(dialogues)))

    def play(made: Engine, *arguments, **options) -> None:
        made.load(params)
        asyncio.run(all_at_once(made, *arguments, **options))

    def texts(number: int, first: int, later: int, turns: int) -> list[np.ndarray]:
        rng = np.random.default_rng(number)
        return [rng.integers(1, VOCABULARY, later if turn else first).astype(np.int32) for turn in range(turns)]

    batch = engine(slots=PROMPTS, rows=0, max_new_tokens=NEW)
    found = {"new_tokens_per_second": PROMPTS * NEW / timed(lambda: play(batch, [[row] for row in prompts()]))}

    talk, single = [texts(0, PROMPT, 40, 8)], engine(slots=1)
    found["cached"] = timed(lambda: play(single, talk))
    found["computed_over_distinct"] = single.counts.computed / single.counts.streamed
    found["from_anew"] = timed(lambda: play(single, talk, again=True))

    crowd = [texts(number, 160, 32, TURNS) for number in range(DIALOGUES)]
    for slots in (16, 32, 64):
        made = engine(slots=slots)
        alone = timed(lambda made=made: play(made, crowd), 3)
        wall = timed(lambda made=made: play(made, crowd, LATENCY), 3)
        found[f"latency, {slots} slots"] = {"alone": alone, "wall": wall, "parked": made.counts.parked}
    return found


def transformers(path: str) -> dict:
    """transformers' generate with its KV cache, on torch."""
    import torch
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    ids = torch.tensor(prompts()).long()
    options = {"do_sample": True, "top_k": 0, "top_p": 1.0, "temperature": 1.0, "pad_token_id": 0, "eos_token_id": -1}

    def work():
        with torch.no_grad():
            written = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=NEW, **options)
        assert written.shape == (PROMPTS, PROMPT + NEW)

    return {"new_tokens_per_second": PROMPTS * NEW / timed(work)}


def tunix(path: str) -> dict:
    """Tunix's sampler, which takes text: prompts are their own numbers, spelled out."""
    from tunix.generate import sampler

    model, mesh = contest.tunix_model(path, VOCABULARY)

    class Spelled:
        def encode(self, text, **_):
            return [int(word) for word in text.split()]

        def decode(self, ids, **_):
            return " ".join(map(str, ids))

        def bos_id(self):
            return 0

        def eos_id(self):
            return VOCABULARY  # never drawn

        def pad_id(self):
            return VOCABULARY - 1

    shape = contest.SHAPE
    cache = sampler.CacheConfig(
        cache_size=512,
        num_layers=shape["num_layers"],
        num_kv_heads=shape["num_kv_heads"],
        head_dim=shape["hidden_size"] // shape["num_heads"],
    )
    texts = [" ".join(map(str, row % (VOCABULARY - 1))) for row in prompts()]
    with mesh:
        made = sampler.Sampler(model, Spelled(), cache)

        def work():
            made(texts, max_generation_steps=NEW, max_prompt_length=PROMPT, temperature=1.0, top_p=1.0, seed=0)

        return {"new_tokens_per_second": PROMPTS * NEW / timed(work)}


CONTENDERS = {"ours": ours, "transformers": transformers, "Tunix": tunix}


def main() -> None:
    """Prints the tables; with --json, writes them."""
    found, hand_in = contest.run(__doc__, CONTENDERS, VOCABULARY)
    mine, records, what = found["ours"], [], f"sampling {PROMPTS} x ({PROMPT} + {NEW})"
    print(f"{what}\n\n| | new tokens/s | ours over it |\n|---|---:|---:|")
    for name, result in found.items():
        ratio = mine["new_tokens_per_second"] / result["new_tokens_per_second"]
        print(f"| {name} | {result['new_tokens_per_second']:,.0f} | {ratio:.2f} |")
        if name != "ours":
            values = {"ours": mine["new_tokens_per_second"], "peer": result["new_tokens_per_second"], "ratio": ratio}
            records.append({"what": what, **values, "peer_name": name, "unit": "new tokens/s", "note": ""})
    ratio = mine["from_anew"] / mine["cached"]
    note = f"computed / distinct tokens = {mine['computed_over_distinct']:.2f}"
    print(f"\n8 turns: {mine['cached']:.2f} s, with the history computed each turn {ratio:.2f} times that; {note}")
    values = {"ours": mine["cached"], "peer": mine["from_anew"], "ratio": ratio}
    records.append({"what": "8 turns", **values, "peer_name": "history anew each turn", "unit": "s", "note": note})
    waiting = LATENCY * TURNS
    print(f"\n{DIALOGUES} dialogues, latency {LATENCY} s: {waiting} s of waiting in each\n")
    print("| slots | compute alone, s | with latency, s | over the larger | tokens parked |\n|---|---:|---:|---:|---:|")
    for slots in (16, 32, 64):
        result = mine[f"latency, {slots} slots"]
        bound, note = max(result["alone"], waiting), f"{slots} slots, {result['parked']:,} tokens parked"
        row = (f"{result['alone']:.2f}", f"{result['wall']:.2f}", f"{result['wall'] / bound:.2f}")
        print(f"| {slots} | {' | '.join(row)} | {result['parked']:,} |")
        values = {"ours": result["wall"], "peer": bound, "ratio": bound / result["wall"]}
        peer = "the larger of compute and waiting"
        records.append({"what": "64 dialogues with latency", **values, "peer_name": peer, "unit": "s", "note": note})
    hand_in(records)


if __name__ == "__main__":
    main()
