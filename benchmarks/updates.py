"""One update of the same model on the same tokens: here, in torch as TRL computes the loss, and in Tunix.

Each is made ready by a function of (checkpoint, words of its vocabulary, rows) that returns the update to call: it
returns loss and gradient norm, and goes on from the parameters and moments that it left. All learn on-policy: every
ratio is 1 at first.
"""

import functools
import sys

LENGTH, SCORED = 512, 256
LEARNING_RATE = 1e-4


def batch(words, count):
    """tokens [count, LENGTH], below `words`, of which the last SCORED count, and advantages [count]."""
    import numpy as np

    rng = np.random.default_rng(0)
    tokens = rng.integers(0, words, (count, LENGTH)).astype(np.int32)
    return tokens, np.resize(np.array([1.0, -1.0, 0.5, -0.5], np.float32), count)


def ours(path, words, count):
    """`cmpo.training.update_step.make_update`, one row at a time."""
    import jax
    import numpy as np
    import optax

    from cmpo.algorithms.algorithm import Rows, Signals
    from cmpo.algorithms.clipped import clipped_loss
    from cmpo.distributed import sharding
    from cmpo.run.train_state import begin_training
    from cmpo.training import update_step
    from models import hf

    config, params = hf.load(path)
    mesh = sharding.make_mesh()
    optimizer = optax.adamw(LEARNING_RATE)
    loss = functools.partial(clipped_loss, clip_low=0.2, clip_high=0.2, kl_weight=0.0)
    update = update_step.make_update(config, mesh, optimizer, loss)
    tokens, advantages = batch(words, count)
    rows = Rows(
        tokens=tokens,
        positions=np.broadcast_to(np.arange(LENGTH, dtype=np.int32), tokens.shape),
        segment_ids=np.ones_like(tokens),
        mask=np.broadcast_to(np.arange(LENGTH) >= LENGTH - SCORED, tokens.shape),
        sampled_logprobs=np.zeros(tokens.shape, np.float32),
        turns=np.zeros_like(tokens),
    )
    signals = Signals(np.broadcast_to(advantages[:, None], tokens.shape), np.zeros(tokens.shape, np.float32))
    sampled = update_step.make_score(config, mesh)({}, params, sharding.place_rows(mesh, rows, 1))
    rows = rows.replace(sampled_logprobs=np.asarray(sampled).reshape(tokens.shape))
    rows, signals = sharding.place_rows(mesh, (rows, signals), 1)
    state = begin_training(optimizer, params), update_step.WITHOUT_HEAD
    del params  # the update takes it over

    def work():
        nonlocal state
        *state, metrics = update(*state, {}, rows, signals)
        jax.block_until_ready(state)
        return float(metrics["loss"]), float(metrics["grad_norm"])

    return work


def trl(path, words, count):
    """torch and transformers, log-probabilities as TRL computes them, the whole batch at once."""
    import torch
    import transformers
    from trl.trainer.utils import selective_log_softmax

    model = transformers.AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    optimizer = torch.optim.AdamW(model.parameters(), LEARNING_RATE)
    tokens, advantages = (torch.tensor(x) for x in batch(words, count))
    tokens = tokens.long()

    def work():
        optimizer.zero_grad()
        logits = model(tokens, logits_to_keep=SCORED + 1).logits[:, :-1]
        logprobs = selective_log_softmax(logits, tokens[:, -SCORED:])
        ratio = torch.exp(logprobs - logprobs.detach())
        loss = -(ratio * advantages[:, None]).mean()
        loss.backward()
        norm = torch.nn.utils.get_total_norm([p.grad for p in model.parameters()])
        optimizer.step()
        return float(loss), float(norm)

    return work


def tunix(path, words, count):
    """Tunix's Qwen2 and its log-probabilities, jitted and donated, the whole batch at once."""
    import jax
    import jax.numpy as jnp
    import optax
    from flax import nnx
    from tunix.rl import common

    from benchmarks import contest

    model, mesh = contest.tunix_model(path, words)
    with mesh:
        graph, state = nnx.split(model)
        del model
        optimizer = optax.adamw(LEARNING_RATE)
        kept = state, optimizer.init(state)
        del state
    tokens, advantages = batch(words, count)

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

    def work():
        nonlocal kept
        with mesh:
            *kept, loss, norm = jax.block_until_ready(update(*kept))
        return float(loss), float(norm)

    return work


CONTENDERS = {"ours": ours, "torch/TRL": trl, "Tunix": tunix}


def check(found):
    """Exits unless all contenders computed the same thing, by the `grad_norm` of what each found."""
    mine = found["ours"]["grad_norm"]
    for name, result in found.items():
        if abs(result["grad_norm"] - mine) > 1e-3 * mine:
            sys.exit(f"{name} computed something else")
