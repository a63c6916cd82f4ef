"""Tokens appended to a cache, in any pieces: the same as one forward pass."""

import dataclasses

import chex
import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized
from hypothesis import strategies as st

from models import cache as kv_cache
from models import qwen2
from tests.builders.small_model import CONFIG, new_params, new_tokens

forward = jax.jit(qwen2.forward, static_argnums=0)
extend = jax.jit(qwen2.extend, static_argnums=0)
token_logprobs = jax.jit(qwen2.token_logprobs, static_argnums=0)


def by_token(cache):
    """Keys and values of a cache, both [L, S, C, K, D]."""
    by_block = jnp.moveaxis(cache.k, (2, 5), (1, 3)), jnp.moveaxis(cache.v, (2, 4), (1, 3))
    return tuple(x.reshape(*x.shape[:2], -1, *x.shape[4:]) for x in by_block)


class ExtendTest(chex.TestCase):
    @hypothesis.settings(max_examples=15, deadline=None, derandomize=True)
    @hypothesis.given(
        st.lists(st.lists(st.integers(0, 5), min_size=3, max_size=3), min_size=1, max_size=8), st.integers(0, 99)
    )
    def test_ragged_pieces_equal_one_forward(self, turns, seed):
        """Each turn appends 0 to 5 tokens to each of 3 slots; padding is other tokens, and leaves no trace."""
        params, tokens = new_params(CONFIG), np.asarray(new_tokens(seed, 3, 40))
        expected = np.asarray(forward(CONFIG, params, tokens))
        cache, done = kv_cache.init(CONFIG, 3, 40, block=16), np.zeros(3, int)
        for index, counts in enumerate(turns):
            piece = np.array(new_tokens(100 + index, 3, 5))
            for slot, count in enumerate(counts):
                piece[slot, :count] = tokens[slot, done[slot] : done[slot] + count]
            before = cache
            logits, cache = extend(CONFIG, params, cache, piece, jnp.array(counts))
            done += counts
            np.testing.assert_array_equal(cache.lengths, done)
            for slot, count in enumerate(counts):
                if count:
                    np.testing.assert_allclose(logits[slot], expected[slot, done[slot] - 1], atol=2e-4)
                # Nothing but the new tokens' places was written.
                for new, old in zip(by_token(cache), by_token(before), strict=True):
                    np.testing.assert_array_equal(new[:, slot, done[slot] :], old[:, slot, done[slot] :])
                    kept = slice(0, done[slot] - count)
                    np.testing.assert_array_equal(new[:, slot, kept], old[:, slot, kept])

    def test_decoding_in_a_loop_equals_one_forward(self):
        """Greedy decoding from prompts of different lengths; slot 2 has ended and stays as it is."""
        params, prompts, counts = new_params(CONFIG), new_tokens(1, 3, 6), jnp.array([2, 6, 4])
        running = jnp.array([1, 1, 0])
        logits, cache = extend(CONFIG, params, kv_cache.init(CONFIG, 3, 20), prompts, counts)

        @jax.jit
        def decode(logits, cache):
            def step(state):
                i, logits, cache, out = state
                token = jnp.argmax(logits, axis=-1)
                logits, cache = qwen2.extend(CONFIG, params, cache, token[:, None], running)
                return i + 1, logits, cache, out.at[:, i].set(token)

            start = (0, logits, cache, jnp.zeros((3, 9), jnp.int32))
            return jax.lax.while_loop(lambda state: state[0] < 9, step, start)

        _, _, after, out = decode(logits, cache)
        np.testing.assert_array_equal(after.lengths, [11, 15, 4])
        np.testing.assert_array_equal(after.k[:, :, 2], cache.k[:, :, 2])
        for slot, count in ((0, 2), (1, 6)):
            row = jnp.concatenate([prompts[slot, :count], out[slot]])[None]
            np.testing.assert_array_equal(
                out[slot], jnp.argmax(forward(CONFIG, params, row)[0, count - 1 : -1], axis=-1)
            )

    @parameterized.parameters(1, 4)
    def test_a_slot_does_not_depend_on_the_others_to_the_bit(self, width):
        config = dataclasses.replace(CONFIG, max_positions=400)
        params, own = new_params(config), new_tokens(1, 300)

        def play(seed, others):
            """Two turns of slot 1, after which the other slots hold `others` tokens of their own."""
            tokens = new_tokens(seed, 3, 300).at[1].set(own)
            _, cache = extend(
                config, params, kv_cache.init(config, 3, 400), tokens, jnp.array([others, 20, 300 - others])
            )
            piece = new_tokens(seed + 1, 3, width).at[1].set(own[20 : 20 + width])
            counts = jnp.array([width, width, seed % 2])
            logits, cache = extend(config, params, cache, piece, counts)
            return logits[1], [x[:, 1, : 20 + width] for x in by_token(cache)]

        first = play(5, 30)
        for seed, others in ((6, 300), (7, 0), (8, 150)):
            chex.assert_trees_all_equal(play(seed, others), first)

    def test_rows_may_be_any_slots(self):
        """To the bit what the same rows give in a cache that holds only them."""
        params, tokens = new_params(CONFIG), new_tokens(1, 5, 9)
        _, cache = extend(CONFIG, params, kv_cache.init(CONFIG, 5, 40, block=4), tokens, jnp.array([9, 4, 7, 1, 0]))
        slots, piece, counts = jnp.array([3, 0, 0]), new_tokens(2, 3, 6), jnp.array([6, 2, 0])
        chosen = kv_cache.take_slots(cache, slots)
        expected, alone = extend(CONFIG, params, chosen, piece, counts)
        actual, after = jax.jit(qwen2.extend, static_argnums=0)(CONFIG, params, cache, piece, counts, slots=slots)
        np.testing.assert_array_equal(actual[:2], expected[:2])
        np.testing.assert_array_equal(after.lengths, [11, 4, 7, 7, 0])
        for row, slot in ((0, 3), (1, 0)):
            size = after.lengths[slot]
            for ours, other in zip(by_token(after), by_token(alone), strict=True):
                np.testing.assert_array_equal(ours[:, slot, :size], other[:, row, :size])
        np.testing.assert_array_equal(after.v[:, :, 1:3], cache.v[:, :, 1:3])

    def test_a_slot_moves_to_another_in_a_cache_that_grew(self):
        params, tokens = new_params(CONFIG), new_tokens(1, 2, 9)
        logits, cache = extend(CONFIG, params, kv_cache.init(CONFIG, 2, 12, block=4), tokens, jnp.array([9, 5]))
        moved = kv_cache.take_tokens(cache, jnp.int32(0), 10)
        grown = kv_cache.put_tokens(kv_cache.grow_slots(cache, 20), jnp.int32(1), *moved)._replace(
            lengths=jnp.array([9, 9])
        )
        after, _ = extend(
            CONFIG, params, grown, new_tokens(2, 2, 3).at[1].set(new_tokens(2, 2, 3)[0]), jnp.array([3, 3])
        )
        np.testing.assert_array_equal(after[0], after[1])
        self.assertGreater(np.abs(after[0] - logits[0]).max(), 1e-3)

    def test_sampling_and_training_agree(self):
        """Log-probabilities from the cache are those of `token_logprobs`."""
        params, tokens = new_params(CONFIG), new_tokens(1, 2, 12)
        cache, expected = kv_cache.init(CONFIG, 2, 12), token_logprobs(CONFIG, params, tokens)[0]
        for t in range(11):
            logits, cache = extend(CONFIG, params, cache, tokens[:, t : t + 1], jnp.array([1, 1]))
            actual = jax.nn.log_softmax(logits)[jnp.arange(2), tokens[:, t + 1]]
            np.testing.assert_allclose(actual, expected[:, t + 1], atol=2e-4)


if __name__ == "__main__":
    absltest.main()
