"""Qwen2.5 (the decoder of https://arxiv.org/abs/2412.15115) as Flax NNX modules behind pure functions.

Outside this file a model is `(config, params)`: a hashable `Qwen2Config` and a nested dict of arrays. The modules are
taken apart once per config and put together again whenever a function is traced, so every function below composes with
jit (`config` static), grad, vmap, scan and shard_map.

Layers are stacked along a leading axis and run by `jax.lax.scan`: compile time does not grow with depth.

Legend: B rows, T tokens of a row, S slots of the cache, W new tokens of a slot, V vocabulary, D hidden size,
H query heads, K key/value heads, A head dimension, L layers, F MLP size.
"""

import functools
from collections.abc import Callable
from typing import Any

import chex
import jax
import jax.numpy as jnp
from flax import nnx

from models import rope as rotary
from models import scoring
from models.attention import cached_attention, causal_attention
from models.cache import KVCache
from models.config import Qwen2Config
from models.lora import Linear
from models.rope import Rope

Params = dict[str, Any]
"""Nested dict of float arrays; matrices are [in, out], those of the layers [L, in, out]."""

CHUNK = 8192
"""Words whose logits exist at one time in training."""

Attend = Callable[[jax.Array, jax.Array, jax.Array], tuple[jax.Array, Any]]
"""Maps q [B, T, H, A], k and v [B, T, K, A] to the mixed values [B, T, H, A] and what the next layer needs."""


class RMSNorm(nnx.Module):
    """Scales [..., D] to mean square 1 and then by a learned vector; in float32, returned in the input's dtype."""

    def __init__(self, config: Qwen2Config):
        self.scale = nnx.Param(jnp.ones(config.hidden_size))
        self.eps = config.rms_norm_eps

    def __call__(self, x: jax.Array) -> jax.Array:
        """Normalizes x [..., D]."""
        y = x.astype(jnp.float32)
        y *= jax.lax.rsqrt(jnp.mean(y * y, axis=-1, keepdims=True) + self.eps)
        return (y * self.scale[...]).astype(x.dtype)


class Attention(nnx.Module):
    """Grouped-query attention with rotary positions: biases on q, k and v, none on the output."""

    def __init__(self, config: Qwen2Config, rngs: nnx.Rngs):
        linear = functools.partial(Linear, config, rngs=rngs)
        q_size, kv_size = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
        self.q = linear(config.hidden_size, q_size, use_bias=config.attention_bias)
        self.k = linear(config.hidden_size, kv_size, use_bias=config.attention_bias)
        self.v = linear(config.hidden_size, kv_size, use_bias=config.attention_bias)
        self.o = linear(q_size, config.hidden_size, use_bias=False)
        self.head_dim = config.head_dim

    def __call__(self, x: jax.Array, rope: Rope, attend: Attend) -> tuple[jax.Array, Any]:
        """Maps x [B, T, D] to the same shape, and returns what `attend` wants carried on beside it."""
        q, k, v = (y.reshape(*x.shape[:2], -1, self.head_dim) for y in (self.q(x), self.k(x), self.v(x)))
        mixed, carried = attend(rotary.rotate(q, rope), rotary.rotate(k, rope), v)
        return self.o(mixed.reshape(*x.shape[:2], -1)), carried


class MLP(nnx.Module):
    """SwiGLU: down(silu(gate(x)) * up(x)), without biases."""

    def __init__(self, config: Qwen2Config, rngs: nnx.Rngs):
        linear = functools.partial(Linear, config, use_bias=False, rngs=rngs)
        self.gate = linear(config.hidden_size, config.intermediate_size)
        self.up = linear(config.hidden_size, config.intermediate_size)
        self.down = linear(config.intermediate_size, config.hidden_size)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [..., D] to [..., D]."""
        return self.down(_swiglu(self.gate(x), self.up(x)))


@functools.partial(jax.checkpoint, prevent_cse=False)  # computing it again takes less time than storing its parts
def _swiglu(gate: jax.Array, up: jax.Array) -> jax.Array:
    return jax.nn.silu(gate) * up


class Block(nnx.Module):
    """One layer: attention, then the MLP, each behind a norm and added to its input."""

    def __init__(self, config: Qwen2Config, rngs: nnx.Rngs):
        self.attention_norm = RMSNorm(config)
        self.attention = Attention(config, rngs)
        self.mlp_norm = RMSNorm(config)
        self.mlp = MLP(config, rngs)

    def __call__(self, x: jax.Array, rope: Rope, attend: Attend) -> tuple[jax.Array, Any]:
        """Maps x [B, T, D] to the same shape, and returns what `attend` wants carried on beside it."""
        mixed, carried = self.attention(self.attention_norm(x), rope, attend)
        x = x + mixed
        return x + self.mlp(self.mlp_norm(x)), carried


class Qwen2(nnx.Module):
    """The whole decoder; `layers` is one `Block` whose arrays have a leading axis L."""

    def __init__(self, config: Qwen2Config, rngs: nnx.Rngs):
        normal = nnx.initializers.normal(config.initializer_range)
        self.embed = nnx.Embed(
            config.vocab_size, config.hidden_size, dtype=config.dtype, embedding_init=normal, rngs=rngs
        )
        self.layers = nnx.vmap(lambda rngs: Block(config, rngs))(rngs.split(config.num_layers))
        self.norm = RMSNorm(config)
        if not config.tie_embeddings:
            self.head = nnx.Linear(config.hidden_size, config.vocab_size, use_bias=False, kernel_init=normal, rngs=rngs)


def init(config: Qwen2Config, key: jax.Array) -> Params:
    """Returns new float32 parameters: matrices and embedding normal, biases 0, norms 1."""
    return nnx.to_pure_dict(nnx.state(Qwen2(config, nnx.Rngs(key))))


def shapes(config: Qwen2Config) -> Params:
    """Returns the parameters as `jax.ShapeDtypeStruct`s, allocating nothing."""
    return jax.tree.map(lambda leaf: leaf, _shapes(config))  # dicts of the caller's own


def cast(config: Qwen2Config, params: Params) -> Params:
    """Returns the parameters with matrices and embedding in `config.dtype`; the model computes the same with them."""

    def cast_leaf(path, leaf):
        return leaf.astype(config.dtype) if path[-1].key in ("kernel", "embedding") else leaf

    return jax.tree_util.tree_map_with_path(cast_leaf, params)


def hidden(
    config: Qwen2Config,
    params: Params,
    tokens: jax.Array,
    *,
    positions: jax.Array | None = None,
    segment_ids: jax.Array | None = None,
    prefix_ids: jax.Array | None = None,
    constrain: Callable[[jax.Array], jax.Array] = lambda x: x,
) -> jax.Array:
    """Returns the hidden states [B, T, D] after the last norm, in `config.dtype`.

    Args:
      config: the model's sizes.
      params: its parameters.
      tokens: [B, T] int, below V, padding too.
      positions: [B, T] int, from 0 in each segment, or from the end of its prefix; None: 0, 1, 2, ...
      segment_ids: [B, T] int, 0 for padding; tokens see earlier tokens of their own segment only. None: one segment.
      prefix_ids: [B, T] int, an earlier segment of the row that tokens see as well, 0 for none; see `causal_attention`.
      constrain: applied to the activations [B, T, D] between layers, to say how they are sharded.

    Raises:
      ValueError: if positions are not given and T exceeds `config.max_positions`, or for prefixes if the model has a
        sliding window. Rows of several segments may be longer, because only positions count.
    """
    chex.assert_rank(tokens, 2)
    if positions is None:
        if tokens.shape[1] > config.max_positions:
            raise ValueError(f"{tokens.shape[1]} tokens exceed the model's max_positions {config.max_positions}")
        positions = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)
    model = _build_model(config, params)
    rope = rotary.compute_angles(config, positions)

    def run_layer(x, xs):
        block, window = xs

        def attend(q, k, v):
            seen = {"prefix_ids": prefix_ids, "window": window}
            return causal_attention(q, k, v, segment_ids, **seen, kernel=config.attention), None

        return constrain(block(x, rope, attend)[0]), None

    if config.remat:
        policy = getattr(jax.checkpoint_policies, config.remat) if isinstance(config.remat, str) else None
        run_layer = jax.checkpoint(run_layer, policy=policy, prevent_cse=False)
    x, _ = jax.lax.scan(run_layer, constrain(model.embed(tokens)), (model.layers, _layer_windows(config)))
    return model.norm(x)


def head(config: Qwen2Config, params: Params, hidden: jax.Array) -> jax.Array:
    """Maps hidden states [..., D] to logits [..., V], float32."""
    weights = _head_weights(config, params)
    kernel = weights.T if config.tie_embeddings else weights
    return jnp.dot(hidden, kernel.astype(config.dtype), preferred_element_type=jnp.float32)


def forward(
    config: Qwen2Config,
    params: Params,
    tokens: jax.Array,
    *,
    positions: jax.Array | None = None,
    segment_ids: jax.Array | None = None,
) -> jax.Array:
    """Returns the logits [B, T, V], float32, of the token after each one; arguments as for `hidden`."""
    return head(config, params, hidden(config, params, tokens, positions=positions, segment_ids=segment_ids))


def token_logprobs(
    config: Qwen2Config,
    params: Params,
    tokens: jax.Array,
    *,
    mask: jax.Array | None = None,
    positions: jax.Array | None = None,
    segment_ids: jax.Array | None = None,
    prefix_ids: jax.Array | None = None,
    temperature: float = 1.0,
    constrain: Callable[[jax.Array], jax.Array] = lambda x: x,
    chunk: int = CHUNK,
    vocab_shards: int = 1,
    value_of: Callable[[jax.Array], jax.Array] | None = None,
) -> tuple[jax.Array, ...]:
    """Log-probability of every token given those before it, and the entropy of the distribution it was drawn from.

    The head is applied for about `chunk` words at a time, and again in the backward pass, so that [B, T, V] never
    exists. Both results are differentiable.

    Args:
      config: the model's sizes.
      params: its parameters.
      tokens: [B, T] int.
      mask: [B, T] bool, the tokens to score; only the positions before them go through the head. None: all.
      positions: as for `hidden`.
      segment_ids: as for `hidden`.
      prefix_ids: as for `hidden`; the first token after a prefix is not scored, as the first of any segment.
      temperature: logits are divided by it, as when the tokens were drawn.
      constrain: as for `hidden`.
      chunk: words whose logits exist at one time.
      vocab_shards: number of parts, on different devices, that the vocabulary is split into.
      value_of: maps hidden states [B, T, D] to values [B, T]: a head beside the output head. None: no values.

    Returns:
      logprobs [B, T] and entropy [B, T], float32, in nats; 0 for tokens with none before them in their segment, for
      padding, and outside the mask. With `value_of`, also values [B, T], each of the state that the token was drawn in.
    """
    wanted = jnp.broadcast_to(jnp.arange(tokens.shape[1]) > 0, tokens.shape)
    if segment_ids is not None:
        wanted &= (segment_ids == jnp.roll(segment_ids, 1, axis=1)) & (segment_ids != 0)
    if mask is not None:
        wanted &= mask
    places = {"positions": positions, "segment_ids": segment_ids, "prefix_ids": prefix_ids}
    states = hidden(config, params, tokens, **places, constrain=constrain)
    weights = _head_weights(config, params)
    layout = scoring.Layout(
        config.tie_embeddings, config.vocab_size, shards=vocab_shards, part=chunk, temperature=temperature
    )
    next_one = functools.partial(jnp.roll, shift=-1, axis=1)
    scores = scoring.score_targets(layout, weights.astype(config.dtype), states, next_one(tokens), next_one(wanted))
    if value_of:
        scores += (jnp.where(next_one(wanted), value_of(states), 0),)
    return tuple(jnp.roll(x, 1, axis=1) for x in scores)


def extend(
    config: Qwen2Config,
    params: Params,
    cache: KVCache,
    tokens: jax.Array,
    counts: jax.Array,
    *,
    slots: jax.Array | None = None,
) -> tuple[jax.Array, KVCache]:
    """Appends tokens to slots of the cache, each at its own length. With W = 1 this is the step of a decoding loop.

    Args:
      config: the model's sizes.
      params: its parameters.
      cache: KVCache of S slots; it is written in place if it is donated or carried through a loop.
      tokens: [R, W] int, left-aligned; what is beyond a row's count is ignored.
      counts: [R] int32, new tokens of each row, 0..W; the caller keeps `lengths + counts` within the capacity.
      slots: [R] int32, the slot of each row; only rows with a count of 0 may share one. None: row r is slot r, R = S.

    Returns:
      logits [R, V], float32, after each row's last new token (meaningless for a count of 0), and the cache. A row's
      results are the same, to the bit, whatever the others hold; a slot with count 0 is unchanged.
    """
    rows, width = tokens.shape
    chex.assert_shape(counts, (rows,))
    _, blocks, _, _, block, _ = cache.v.shape
    at = jnp.arange(rows) if slots is None else slots
    chex.assert_equal_shape([counts, at, *([cache.lengths] if slots is None else [])])
    model = _build_model(config, params)
    before = cache.lengths[at]
    positions = before[:, None] + jnp.arange(width)
    rope = rotary.compute_angles(config, positions)
    # Padding is sent beyond the last block, where a scatter drops it.
    into, write = jnp.where(jnp.arange(width) < counts[:, None], positions // block, blocks), positions % block
    held = jnp.where(counts > 0, before + counts, 0)

    # The cache is carried whole: as an input and output of the scan, all of it would be copied at each call.
    def run_layer(carry, xs):
        x, k_cache, v_cache = carry
        index, block, window = xs

        def attend(q, k, v):
            place = index, into, at[:, None], slice(None)
            k_new = k_cache.at[*place, :, write].set(k.astype(k_cache.dtype), mode="drop")
            v_new = v_cache.at[*place, write].set(v.astype(v_cache.dtype), mode="drop")
            mixed = cached_attention(q, k_new, v_new, index, positions, held, slots=slots, window=window)
            return mixed, (k_new, v_new)

        x, (k_cache, v_cache) = block(x, rope, attend)
        return (x, k_cache, v_cache), None

    carry = (model.embed(tokens), cache.k, cache.v)
    (x, k, v), _ = jax.lax.scan(run_layer, carry, (jnp.arange(config.num_layers), model.layers, _layer_windows(config)))
    last = jnp.take_along_axis(x, jnp.maximum(counts - 1, 0)[:, None, None], axis=1)[:, 0]
    return head(config, params, model.norm(last)), KVCache(k, v, cache.lengths.at[at].add(counts))


def _head_weights(config: Qwen2Config, params: Params) -> jax.Array:
    """Returns the weights of the output head: the embedding [V, D] if it is tied, else a matrix [D, V]."""
    return params["embed"]["embedding"] if config.tie_embeddings else params["head"]["kernel"]


@functools.cache
def _shapes(config: Qwen2Config) -> Params:
    """Traces the modules, once for each config: it takes a tenth of a second."""
    return jax.eval_shape(lambda: init(config, jax.random.key(0)))


@functools.cache
def _build_graph(config: Qwen2Config) -> nnx.GraphDef:
    """Builds the structure of the modules without their arrays, once per config; allocates nothing."""
    return nnx.graphdef(nnx.eval_shape(lambda: Qwen2(config, nnx.Rngs(0))))


def _build_model(config: Qwen2Config, params: Params) -> Qwen2:
    return nnx.merge(_build_graph(config), params)


def _layer_windows(config: Qwen2Config) -> jax.Array | None:
    """Returns how far back each layer's tokens see, [L] int32; None if all layers see everything."""
    if not config.sliding_window:
        return None
    layers = jnp.arange(config.num_layers)
    return jnp.where(layers >= config.window_from, config.sliding_window, jnp.iinfo(jnp.int32).max)
