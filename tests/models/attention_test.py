"""Blocked attention against attention written out in full."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl.testing import absltest, parameterized
from hypothesis import given, settings
from hypothesis import strategies as st

from models.attention import cached_attention, causal_attention

causal = jax.jit(causal_attention, static_argnames="block")
cached = jax.jit(cached_attention, static_argnames="whole")


def full_attention(q, k, v, segment_ids, near=True, prefix_ids=None):
    """Every query against every key that is `near`, key/value heads repeated: [B, T, H, D] in, [B, T, H, D] out."""
    repeats = q.shape[2] // k.shape[2]
    k, v = jnp.repeat(k, repeats, axis=2), jnp.repeat(v, repeats, axis=2)
    scores = jnp.einsum("bthd,bshd->bhts", q, k) / np.sqrt(q.shape[-1])
    steps = jnp.arange(q.shape[1])
    same = segment_ids[:, :, None] == segment_ids[:, None, :]
    if prefix_ids is not None:
        same |= (prefix_ids[:, :, None] > 0) & (prefix_ids[:, :, None] == segment_ids[:, None, :])
    mask = near & (steps[:, None] >= steps) & same
    return jnp.einsum("bhts,bshd->bthd", jax.nn.softmax(jnp.where(mask[:, None], scores, -jnp.inf)), v)


def normal(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape)


def laid_out(before, bundles, length):
    """Segment and prefix ids [T]: padding, then bundles (length of the prefix, of what continues it), cut to fit."""
    segments, prefixes, count = [0] * before, [0] * before, 0
    for prefix, others in bundles:
        first = count = count + 1
        segments, prefixes = segments + [first] * prefix, prefixes + [0] * prefix
        for other in others:
            count += 1
            segments, prefixes = segments + [count] * other, prefixes + [first] * other
    padding = [0] * length
    return (segments + padding)[:length], (prefixes + padding)[:length]


BUNDLES = st.lists(st.tuples(st.integers(0, 9), st.lists(st.integers(1, 9), min_size=1, max_size=4)), max_size=4)
LAYOUTS = st.tuples(st.integers(0, 5), BUNDLES)


class CausalAttentionTest(chex.TestCase):
    @chex.variants(with_jit=True, without_jit=True)
    @parameterized.parameters((1, 16), (2, 5), (4, 64))
    def test_equals_full_attention(self, kv_heads, block):
        q, k, v = normal(0, 2, 21, 4, 8), normal(1, 2, 21, kv_heads, 8), normal(2, 2, 21, kv_heads, 8)
        segments = jnp.array([[1] * 9 + [2] * 12, [1] * 17 + [0] * 4])
        actual = self.variant(causal_attention, static_argnames="block")(q, k, v, segments, block=block)
        chex.assert_trees_all_close(actual, full_attention(q, k, v, segments), atol=2e-6)

    def test_no_segments_is_one_segment(self):
        q, k, v = normal(0, 1, 9, 2, 4), normal(1, 1, 9, 1, 4), normal(2, 1, 9, 1, 4)
        chex.assert_trees_all_equal(causal(q, k, v, block=4), causal(q, k, v, jnp.ones((1, 9), jnp.int32), block=4))

    def test_gradients_equal_those_of_full_attention(self):
        x = normal(0, 2, 21, 4, 8), normal(1, 2, 21, 2, 8), normal(2, 2, 21, 2, 8)
        segments = jnp.array([[1] * 9 + [2] * 12, [1] * 17 + [0] * 4])
        weights = normal(3, 2, 21, 4, 8)
        actual = jax.jit(jax.grad(lambda x: jnp.sum(weights * causal_attention(*x, segments, block=8))))(x)
        expected = jax.jit(jax.grad(lambda x: jnp.sum(weights * full_attention(*x, segments))))(x)
        chex.assert_trees_all_close(actual, expected, atol=1e-5)

    def test_padding_is_finite_and_gets_no_gradient_from_real_tokens(self):
        x = normal(0, 1, 12, 2, 4), normal(1, 1, 12, 1, 4), normal(2, 1, 12, 1, 4)

        def total(x, segments, real):
            output = causal_attention(*x, segments, block=4)
            return jnp.sum(real * output), output

        gradient = jax.jit(jax.grad(total, has_aux=True))

        for segments in (jnp.zeros((1, 12), jnp.int32), jnp.array([[1] * 5 + [0] * 7])):
            real = (segments != 0)[..., None, None]
            gradients, output = gradient(x, segments, real)
            chex.assert_tree_all_finite((output, gradients))
            for leaf in gradients:
                chex.assert_trees_all_equal(jnp.where(real, 0, leaf), jnp.zeros_like(leaf))

    @parameterized.parameters((True, None, 8), (False, 5, 16), (True, 9, 16))
    def test_blocks_of_other_segments_and_beyond_the_window_are_not_even_read(self, cut, window, begin):
        """NaN before token 8, which no query from `begin` on may see, would show in outputs and in gradients."""
        x = normal(0, 1, 24, 2, 4), normal(1, 1, 24, 1, 4), normal(2, 1, 24, 1, 4)
        broken = x[0], *(y.at[:, :8].set(jnp.nan) for y in x[1:])
        segments = jnp.array([[1] * 8 + [2] * 16]) if cut else None
        window = window and jnp.int32(window)

        def total(x):
            return jnp.sum(causal_attention(*x, segments, window=window, block=4)[:, begin:])

        of_total = jax.jit(jax.value_and_grad(total))
        (value, (of_q, *_)), (expected, (of_q_expected, *_)) = of_total(broken), of_total(x)
        chex.assert_trees_all_equal((value, of_q[:, begin:]), (expected, of_q_expected[:, begin:]))

    @parameterized.parameters(None, 6)
    def test_segments_in_any_order_and_a_window(self, window):
        x = normal(0, 2, 21, 4, 8), normal(1, 2, 21, 2, 8), normal(2, 2, 21, 2, 8)
        segments = jnp.array([[3] * 5 + [1] * 9 + [3] * 7, [2] * 10 + [0] * 11])
        weights = jnp.where((segments > 0)[..., None, None], normal(3, 2, 21, 4, 8), 0)
        near = jnp.arange(21)[:, None] - jnp.arange(21) < (window or 21)

        def ours(x):
            attended = causal_attention(*x, segments, window=window and jnp.int32(window), block=4)
            return jnp.sum(weights * attended)

        def plain(x):
            return jnp.sum(weights * full_attention(*x, segments, near))

        actual, expected = (jax.jit(jax.value_and_grad(loss))(x) for loss in (ours, plain))
        chex.assert_trees_all_close(actual, expected, atol=1e-5)

    @settings(max_examples=30, deadline=None)
    @given(layouts=st.tuples(LAYOUTS, LAYOUTS))
    def test_prefixes_equal_full_attention(self, layouts):
        x = normal(0, 2, 37, 4, 8), normal(1, 2, 37, 2, 8), normal(2, 2, 37, 2, 8)
        segments, prefixes = (jnp.array(ids) for ids in zip(*(laid_out(*x, 37) for x in layouts), strict=True))
        weights = jnp.where((segments > 0)[..., None, None], normal(3, 2, 37, 4, 8), 0)
        actual, expected = (of_loss(x, weights, segments, prefixes) for of_loss in (self.blocked, self.full))
        chex.assert_trees_all_close(actual, expected, atol=1e-5)

    @staticmethod
    @jax.jit
    @jax.value_and_grad
    def blocked(x, weights, segments, prefixes):
        return jnp.sum(weights * causal_attention(*x, segments, prefix_ids=prefixes, block=4))

    @staticmethod
    @jax.jit
    @jax.value_and_grad
    def full(x, weights, segments, prefixes):
        return jnp.sum(weights * full_attention(*x, segments, prefix_ids=prefixes))

    def test_blocks_between_a_prefix_and_what_continues_it_are_not_even_read(self):
        """NaN in tokens 8 to 15, which continue the prefix of 8 tokens as well as 16 to 23 do, would show in those."""
        x = normal(0, 1, 24, 2, 4), normal(1, 1, 24, 1, 4), normal(2, 1, 24, 1, 4)
        broken = x[0], *(y.at[:, 8:16].set(jnp.nan) for y in x[1:])
        segments, prefixes = (jnp.array([ids]) for ids in laid_out(0, [(8, [8, 8])], 24))

        def total(x):
            return jnp.sum(causal_attention(*x, segments, prefix_ids=prefixes, block=4)[:, 16:])

        of_total = jax.jit(jax.value_and_grad(total))
        (value, (of_q, *_)), (expected, (of_q_expected, *_)) = of_total(broken), of_total(x)
        chex.assert_trees_all_equal((value, of_q[:, 16:]), (expected, of_q_expected[:, 16:]))

    @parameterized.parameters("prefixes", "window", "segments")
    def test_the_kernel_of_a_library_equals_blocks(self, seen):
        """With JAX's own; cuDNN's, which takes the same mask, needs a GPU."""
        x = normal(0, 2, 64, 4, 8), normal(1, 2, 64, 2, 8), normal(2, 2, 64, 2, 8)
        layouts = (3, [(9, [5, 7]), (4, [9])]), (0, [(0, [64])])
        segments, prefixes = (jnp.array(ids) for ids in zip(*(laid_out(*x, 64) for x in layouts), strict=True))
        weights = jnp.where((segments > 0)[..., None, None], normal(3, 2, 64, 4, 8), 0)
        options = {"prefixes": {"prefix_ids": prefixes}, "window": {"window": jnp.int32(6)}, "segments": {}}[seen]

        def of_loss(kernel):
            def loss(x):
                return jnp.sum(weights * causal_attention(*x, segments, **options, block=16, kernel=kernel))

            return jax.jit(jax.value_and_grad(loss))(x)

        chex.assert_trees_all_close(of_loss("xla"), of_loss("blocks"), atol=1e-4)

    def test_a_window_and_prefixes_are_refused(self):
        x = normal(0, 1, 8, 2, 4), normal(1, 1, 8, 1, 4), normal(2, 1, 8, 1, 4)
        ids = jnp.ones((1, 8), jnp.int32)
        with pytest.raises(ValueError, match="expected prefix_ids or a window, got both"):
            causal_attention(*x, ids, prefix_ids=ids, window=jnp.int32(4))

    def test_bfloat16_keeps_its_dtype_and_is_near_float32(self):
        x = normal(0, 1, 20, 4, 8), normal(1, 1, 20, 2, 8), normal(2, 1, 20, 2, 8)
        actual = causal(*(y.astype(jnp.bfloat16) for y in x), block=16)
        chex.assert_type(actual, jnp.bfloat16)
        chex.assert_trees_all_close(actual.astype(jnp.float32), causal(*x, block=16), atol=0.03)


class CachedAttentionTest(chex.TestCase):
    def setUp(self):
        super().setUp()
        self.k, self.v = normal(1, 3, 4, 22, 2, 8), normal(2, 3, 4, 22, 2, 8)

    def attend(self, lengths, width, block=8, k=None, v=None, attend=cached, **options):
        """Queries at the last `width` positions of each slot, in layer 1."""
        lengths = jnp.asarray(lengths)
        q = normal(0, 4, width, 4, 8)
        positions = jnp.maximum(lengths[:, None] - width, 0) + jnp.arange(width)
        k, v = self.k if k is None else k, self.v if v is None else v
        spare = [(0, 0), (0, 0), (0, -k.shape[2] % block), (0, 0), (0, 0)]
        k, v = (jnp.pad(x, spare).reshape(3, 4, -1, block, 2, 8) for x in (k, v))  # [L, S, N, P, K, D]
        k_cache, v_cache = k.transpose(0, 2, 1, 4, 5, 3), v.transpose(0, 2, 1, 4, 3, 5)
        return q, positions, attend(q, k_cache, v_cache, 1, positions, lengths, **options)

    @chex.variants(with_jit=True, without_jit=True)
    @parameterized.parameters((1, 8), (3, 4), (3, 64))
    def test_equals_full_attention(self, width, block):
        attend = self.variant(cached_attention)
        q, positions, actual = self.attend([3, 22, 10, 17], width, block, attend=attend)
        for slot in range(4):
            scores = jnp.einsum("whd,chd->whc", q[slot], jnp.repeat(self.k[1, slot], 2, 1)) / np.sqrt(8)
            scores = jnp.where(jnp.arange(22) <= positions[slot][:, None, None], scores, -jnp.inf)
            expected = jnp.einsum("whc,chd->whd", jax.nn.softmax(scores), jnp.repeat(self.v[1, slot], 2, 1))
            chex.assert_trees_all_close(actual[slot], expected, atol=2e-6)

    @parameterized.parameters(1, 3)
    def test_a_slot_does_not_depend_on_the_others_to_the_bit(self, width):
        k, v = ((7 * x).at[:, 1].set(x[:, 1]) for x in (self.k, self.v))
        *_, expected = self.attend([5, 6, 7, 3], width)
        for lengths in ([22, 6, 22, 22], [3, 6, 3, 3], [17, 6, 0, 9]):
            *_, actual = self.attend(lengths, width, k=k, v=v)
            chex.assert_trees_all_equal(actual[1], expected[1])

    @parameterized.parameters((1, 8), (3, 4), (1, 64))
    def test_all_of_the_cache_gives_what_its_used_part_gives(self, width, block):
        for lengths in ([3, 22, 10, 17], [3, 2, 1, 4]):
            expected, actual = (self.attend(lengths, width, block, whole=whole)[2] for whole in (False, True))
            chex.assert_trees_all_close(actual, expected, atol=1e-6)

    def test_idle_slots_are_finite(self):
        *_, output = self.attend([0, 0, 0, 0], 1)
        chex.assert_tree_all_finite(output)

    def test_cost_follows_the_longest_slot(self):
        """What lies beyond the longest slot's last block is not even read: NaN there would show."""
        v = self.v.at[:, :, 16:].set(jnp.nan)
        chex.assert_trees_all_equal(self.attend([3, 15, 10, 16], 1, v=v)[2], self.attend([3, 15, 10, 16], 1)[2])


if __name__ == "__main__":
    absltest.main()
