"""Plants an induction head in a new model: it finds earlier copies of the present token, and repeats what came next.

That is how language models copy from their context (arXiv 2209.11895), and what lets an agent quote a fact of its
prompt. A model comes to such heads by itself after some hundred million tokens; a new one that learns from a few
thousand demonstrations has far fewer, and would learn which words a quotation has, but not which number.

The head takes two layers. In the first, each head h looks h + 1 tokens back, by the biases of its queries and keys
alone, and head 0 writes a projection of what it finds beside the token's own embedding. In the second, queries are the
same projection of the token itself, keys what the first layer wrote, and values are written back as they came, so that
the tied output layer reads the token that followed. All of it is a start: every weight is trained like any other.

Legend: L layers, D hidden size, H query heads, K key/value heads, A head dimension.
"""

import jax
import jax.numpy as jnp
import numpy as np

from models import qwen2, rope
from models.config import Qwen2Config
from models.qwen2 import Params

BACK = 6.0  # of the biases by which the first layer looks back: they outweigh what tokens say
MATCH = 12.0  # of the second layer's queries: a match among some hundred tokens stands out
COPY = 0.5  # of what is written back
SHARP = 0.1  # radians a token; planes of the rotary embedding that turn faster tell neighbours apart
STEADY = 0.01  # those that turn more slowly compare tokens a hundred apart as if they stood side by side


def draw_params(config: Qwen2Config, key: jax.Array) -> Params:
    """Draws the parameters of a new model, float32: with such a head where it has two layers and tied outputs."""
    params = qwen2.init(config, key)
    return plant_head(config, params) if config.num_layers > 1 and config.tie_embeddings else params


def plant_head(config: Qwen2Config, params: Params) -> Params:
    """Returns new parameters with an induction head in the first two layers, whose other outputs begin at 0.

    At random, they would drown what the head reads; from 0 they grow as they are of use. Later layers stay as drawn:
    begun at 0 too, they learn to read what is not quoted more slowly.

    Args:
      config: a model of two layers or more, whose queries and keys have biases.
      params: as `qwen2.init` makes them, float32.

    Raises:
      ValueError: for a model without such layers.
    """
    if config.num_layers < 2 or not config.attention_bias:
        raise ValueError(
            "expected two layers or more with attention_bias, got "
            f"num_layers={config.num_layers}, attention_bias={config.attention_bias}"
        )
    heads, kv_heads, size = config.num_heads, config.num_kv_heads, config.head_dim
    attention, mlp = params["layers"]["attention"], params["layers"]["mlp"]
    values, outputs = attention["v"]["kernel"], attention["o"]["kernel"].at[:2].set(0.0)  # [L, D, K * A], [L, H * A, D]
    seen, copied = values[0, :, :size], values[1, :, :size]  # [D, A]

    # What head 0 writes is as large as an embedding, and the second layer's keys take it apart again.
    written = attention["o"]["kernel"][0, :size]  # [A, D]
    written /= jnp.std(written) * np.sqrt(size * config.hidden_size)
    read = config.initializer_range * size * written.T  # [D, A]
    steady = np.tile(rope.frequencies_of(config)[0] < STEADY, 2)  # [A]

    def compare(name: str, kernel: jax.Array, count: int) -> jax.Array:
        """Puts `kernel` [D, A] into the steady planes of the second layer's `count` heads."""
        drawn = attention[name]["kernel"]
        return drawn.at[1].set(jnp.where(np.tile(steady, count), jnp.tile(kernel, (1, count)), drawn[1]))

    outputs = outputs.at[0, :size].set(written).at[1].set(COPY * jnp.tile(copied.T, (heads, 1)))
    queries, keys = _look_back(config)
    changed = {
        "q": {
            "kernel": compare("q", MATCH * seen, heads),
            "bias": attention["q"]["bias"].at[0].set(queries),
        },
        "k": {
            "kernel": compare("k", read, kv_heads),
            "bias": attention["k"]["bias"].at[0].set(keys),
        },
        "o": {"kernel": outputs},
    }
    down = mlp["down"] | {"kernel": mlp["down"]["kernel"].at[:2].set(0.0)}
    layers = params["layers"] | {"attention": attention | changed, "mlp": mlp | {"down": down}}
    return params | {"layers": layers}


def _look_back(config: Qwen2Config) -> tuple[np.ndarray, np.ndarray]:
    """Returns biases of queries [H * A] and keys [K * A] with which head h attends h + 1 positions back."""
    angles, _ = rope.frequencies_of(config)  # [A / 2], radians a position
    strength = BACK * (angles > SHARP)
    turns = np.outer(1 + np.arange(config.num_heads), angles)
    queries = np.concatenate([strength * np.cos(turns), -strength * np.sin(turns)], axis=1)
    keys = np.concatenate([strength, 0 * strength])
    return queries.reshape(-1).astype(np.float32), np.tile(keys, config.num_kv_heads).astype(np.float32)
