"""Peak memory of one update with Qwen2.5's vocabulary, beside torch with TRL's loss and Tunix's.

    python3 -m venv .bench && .bench/bin/pip install -e . -r benchmarks/requirements.txt
    .bench/bin/python -m benchmarks.memory [--json=FILE]

Every contender updates the same model (hidden 256, 6 layers, vocabulary 151,936, float32) on the same 4 x 512 tokens,
the second half of which is scored, with AdamW; each in a process of its own, from the same checkpoint. The figure is
the highest resident memory of the process, less what it held after the same update with a vocabulary of 512: what its
runtime and compiler take is not the update's. The second column leaves out, too, what everybody must hold: parameters,
gradients and two moments, 16 bytes a parameter. Gradient norms are compared: all must have computed the same thing.
"""

import functools
import gc
import os
import pathlib
import resource
import sys
import tempfile

from benchmarks import contest

ROWS, LENGTH, SCORED, VOCABULARY, SMALL = 4, 512, 256, 151936, 512
LEARNING_RATE = 1e-4


def batch(words):
    """tokens [ROWS, LENGTH], below `words`, and advantages [ROWS]."""
    import numpy as np

    tokens = np.random.default_rng(0).integers(0, words, (ROWS, LENGTH)).astype(np.int32)
    return tokens, np.array([1.0, -1.0, 0.5, -0.5], np.float32)


def ours(path, words):
    """`cmpo.step.make_update`, one row at a time."""
    import jax
    import numpy as np
    import optax

    from cmpo import batch as batches
    from cmpo import sharding, step
    from models import hf

    config, params = hf.load(path)
    mesh = sharding.make_mesh()
    optimizer = optax.adamw(LEARNING_RATE)
    share = step.cmpo_share(clip_low=0.2, clip_high=0.2, kl_weight=0.0)
    update = step.make_update(config, mesh, optimizer, share)
    tokens, advantages = batch(words)
    mask = np.broadcast_to(np.arange(LENGTH) >= LENGTH - SCORED, tokens.shape)
    rows = batches.Rows(
        tokens=tokens,
        positions=np.broadcast_to(np.arange(LENGTH, dtype=np.int32), tokens.shape),
        segment_ids=np.ones_like(tokens),
        mask=mask,
        sampled_logprobs=np.zeros(tokens.shape, np.float32),
        turns=np.zeros_like(tokens),
    )
    extras = np.broadcast_to(advantages[:, None], tokens.shape), np.zeros(tokens.shape, np.float32)
    score = step.make_score(config, mesh)
    placed = sharding.rows(mesh, rows, 1)
    sampled = np.asarray(score({}, params, placed)).reshape(tokens.shape)  # on-policy: every ratio is 1
    placed, extras = sharding.rows(mesh, (rows.replace(sampled_logprobs=sampled), extras), 1)
    params, _, metrics = update(params, optimizer.init(params), {}, placed, extras)
    jax.block_until_ready(params)
    return float(metrics["loss"]), float(metrics["grad_norm"])


def trl(path, words):
    """torch and transformers, log-probabilities as TRL computes them, the whole batch at once."""
    import torch
    import transformers
    from trl.trainer.utils import selective_log_softmax

    model = transformers.AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    optimizer = torch.optim.AdamW(model.parameters(), LEARNING_RATE)
    tokens, advantages = (torch.tensor(x) for x in batch(words))
    tokens = tokens.long()
    logits = model(tokens, logits_to_keep=SCORED + 1).logits[:, :-1]
    logprobs = selective_log_softmax(logits, tokens[:, -SCORED:])
    ratio = torch.exp(logprobs - logprobs.detach())
    loss = -(ratio * advantages[:, None]).mean()
    loss.backward()
    norm = torch.nn.utils.get_total_norm([p.grad for p in model.parameters()])
    optimizer.step()
    return float(loss), float(norm)


def tunix(path, words):
    """Tunix's Qwen2 and its log-probabilities, jitted and donated, the whole batch at once."""
    import jax
    import jax.numpy as jnp
    import optax
    from flax import nnx
    from tunix.rl import common

    model, mesh = contest.tunix_model(path, words)
    with mesh:
        graph, state = nnx.split(model)
        del model
        optimizer = optax.adamw(LEARNING_RATE)
        moments = optimizer.init(state)
        tokens, advantages = batch(words)

        @functools.partial(jax.jit, donate_argnums=(0, 1))
        def update(state, moments):
            def loss_of(state):
                logprobs = common.compute_per_token_logps(
                    graph,
                    state,
                    prompt_tokens=jnp.asarray(tokens[:, :-SCORED]),
                    completion_tokens=jnp.asarray(tokens[:, -SCORED:]),
                    pad_id=-1,
                    eos_id=-2,
                    stop_gradient=False,
                )
                ratio = jnp.exp(logprobs - jax.lax.stop_gradient(logprobs))
                return -jnp.mean(ratio * advantages[:, None])

            loss, gradients = jax.value_and_grad(loss_of)(state)
            changes, moments = optimizer.update(gradients, moments, state)
            return optax.apply_updates(state, changes), moments, loss, optax.global_norm(gradients)

        state, _, loss, norm = jax.block_until_ready(update(state, moments))
    return float(loss), float(norm)


def measure(contender, path: str) -> dict[str, float]:
    """Runs one contender in this process."""
    with tempfile.TemporaryDirectory() as directory:
        small = pathlib.Path(directory, "model")
        contest.checkpoint(small, SMALL)
        contender(small, SMALL)
    gc.collect()
    held = resident()
    loss, norm = contender(path, VOCABULARY)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    lasting = 4 * sum(file.stat().st_size for file in pathlib.Path(path).glob("*.safetensors"))  # float32 there
    return {"bytes": peak - held, "beyond": peak - held - lasting, "loss": loss, "grad_norm": norm}


def resident() -> int:
    """Bytes that this process holds now."""
    pages = int(pathlib.Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


CONTENDERS = {
    "ours": functools.partial(measure, ours),
    "torch/TRL": functools.partial(measure, trl),
    "Tunix": functools.partial(measure, tunix),
}


def main() -> None:
    """Prints the table; with --json, writes it."""
    found, hand_in = contest.run(__doc__, CONTENDERS, VOCABULARY)
    mine, records = found["ours"], []
    note = f"{ROWS} x {LENGTH} tokens, vocabulary {VOCABULARY:,}, hidden 256, 6 layers, float32"
    print(f"Peak memory of an update, {note}\n")
    print("| | GB | over ours | beyond what lasts, GB | over ours | loss | gradient norm |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for name, result in found.items():
        row = []
        for what in ("bytes", "beyond"):
            ratio = result[what] / mine[what]
            row += [f"{result[what] / 1e9:.2f}", f"{ratio:.2f}"]
            if name != "ours":
                values = {"ours": mine[what] / 1e9, "peer": result[what] / 1e9, "peer_name": name, "ratio": ratio}
                title = "peak memory of an update" + ("" if what == "bytes" else " beyond 16 bytes a parameter")
                records.append({"what": title, **values, "unit": "GB", "note": note})
        print(f"| {name} | {' | '.join(row)} | {result['loss']:.5f} | {result['grad_norm']:.5f} |")
        if abs(result["grad_norm"] - mine["grad_norm"]) > 1e-3 * mine["grad_norm"]:
            sys.exit(f"{name} computed something else")
    hand_in(records)


if __name__ == "__main__":
    main()
