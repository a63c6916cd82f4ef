"""The model against NumPy, and its roads against one another."""

import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from models import cache as kv_cache
from models import qwen2, scoring
from tests.builders.small_model import CONFIG, new_params, new_tokens

forward = jax.jit(qwen2.forward, static_argnums=0)
token_logprobs = jax.jit(qwen2.token_logprobs, static_argnums=0, static_argnames=("chunk", "vocab_shards"))


def numpy_forward(config, params, tokens):
    """Qwen2.5 for one row of tokens [T], in float64, token by token and head by head: logits [T, V]."""
    params = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
    dim, group = config.head_dim, config.num_heads // config.num_kv_heads

    def norm(x, scale):
        return x / np.sqrt(np.mean(x**2, -1, keepdims=True) + config.rms_norm_eps) * scale

    def rotate(x, position):
        """Pairs (i, i + dim / 2) as complex numbers, turned by position * theta ** (-2 i / dim)."""
        z = x[: dim // 2] + 1j * x[dim // 2 :]
        z = z * np.exp(1j * position * config.rope_theta ** (-2 * np.arange(dim // 2) / dim))
        return np.concatenate([z.real, z.imag])

    x = params["embed"]["embedding"][np.asarray(tokens)]
    for index in range(config.num_layers):
        layer = jax.tree.map(lambda y, index=index: y[index], params["layers"])
        y = norm(x, layer["attention_norm"]["scale"])
        q, k, v = (
            y @ layer["attention"][name]["kernel"] + layer["attention"][name].get("bias", 0.0)
            for name in ("q", "k", "v")
        )
        mixed = np.zeros_like(q)
        for t in range(len(x)):
            for h in range(config.num_heads):
                own, shared = (slice(i * dim, (i + 1) * dim) for i in (h, h // group))
                query = rotate(q[t, own], t)
                scores = np.array([query @ rotate(k[s, shared], s) for s in range(t + 1)]) / np.sqrt(dim)
                weights = np.exp(scores - scores.max())
                mixed[t, own] = weights / weights.sum() @ v[: t + 1, shared]
        x = x + mixed @ layer["attention"]["o"]["kernel"]
        y = norm(x, layer["mlp_norm"]["scale"])
        gate = y @ layer["mlp"]["gate"]["kernel"]
        x = x + (gate / (1 + np.exp(-gate)) * (y @ layer["mlp"]["up"]["kernel"])) @ layer["mlp"]["down"]["kernel"]
    x = norm(x, params["norm"]["scale"])
    return x @ (params["embed"]["embedding"].T if config.tie_embeddings else params["head"]["kernel"])


class ConfigTest(parameterized.TestCase):
    @parameterized.parameters(
        ({"num_kv_heads": 3}, "num_heads 4 is not a multiple of num_kv_heads 3"),
        ({"head_dim": 7}, "head_dim must be positive and even"),
        ({"head_dim": 0, "hidden_size": 26}, "hidden_size 26 is not a multiple of num_heads 4"),
        ({"num_layers": 0}, "num_layers must be positive"),
        ({"dtype": "int32"}, "dtype must be a float type"),
        ({"remat": "nonsense"}, "remat must be"),
        ({"attention": "flash"}, "attention must be one of"),
        ({"attention": "cudnn"}, "attention 'cudnn' needs dtype bfloat16 or float16, got 'float32'"),
    )
    def test_what_cannot_be_is_refused(self, changes, message):
        with self.assertRaisesRegex(ValueError, message):
            dataclasses.replace(CONFIG, **changes)

    def test_head_dim_defaults_to_an_equal_share(self):
        self.assertEqual(dataclasses.replace(CONFIG, head_dim=0).head_dim, 6)

    def test_too_long_is_refused(self):
        with self.assertRaisesRegex(ValueError, "65 tokens exceed"):
            qwen2.forward(CONFIG, new_params(CONFIG), jnp.zeros((1, 65), jnp.int32))
        with self.assertRaisesRegex(ValueError, "capacity 65 exceeds"):
            kv_cache.init(CONFIG, 1, 65)


class ForwardTest(chex.TestCase):
    @chex.variants(with_jit=True, without_jit=True)
    def test_equals_numpy(self):
        tokens, params = new_tokens(1, 1, 12), new_params(CONFIG)
        actual = self.variant(lambda p, t: qwen2.forward(CONFIG, p, t))(params, tokens)
        chex.assert_type(actual, jnp.float32)
        chex.assert_trees_all_close(actual[0], numpy_forward(CONFIG, params, tokens[0]).astype(np.float32), atol=2e-4)

    @parameterized.parameters(
        {"num_kv_heads": 1}, {"num_kv_heads": 4, "tie_embeddings": False}, {"attention_bias": False, "head_dim": 4}
    )
    def test_equals_numpy_in_other_shapes(self, **changes):
        config = dataclasses.replace(CONFIG, **changes)
        tokens, params = new_tokens(1, 1, 9), new_params(config)
        expected = numpy_forward(config, params, tokens[0]).astype(np.float32)
        chex.assert_trees_all_close(forward(config, params, tokens)[0], expected, atol=2e-4)

    def test_bfloat16_is_near_float32(self):
        tokens, params = new_tokens(1, 2, 12), new_params(CONFIG)
        actual = forward(dataclasses.replace(CONFIG, dtype="bfloat16"), params, tokens)
        chex.assert_type(actual, jnp.float32)
        chex.assert_trees_all_close(actual, forward(CONFIG, params, tokens), atol=0.3)

    def test_init(self):
        config = dataclasses.replace(CONFIG, vocab_size=2000, tie_embeddings=False)
        params = jax.jit(functools.partial(qwen2.init, config))(jax.random.key(0))
        for matrix in (params["embed"]["embedding"], params["head"]["kernel"], params["layers"]["mlp"]["up"]["kernel"]):
            self.assertAlmostEqual(float(matrix.std()), 0.02, delta=0.001)
        one, two = params["layers"]["mlp"]["up"]["kernel"]
        self.assertGreater(float(jnp.abs(one - two).max()), 0.01)
        chex.assert_trees_all_equal(params["layers"]["attention"]["q"]["bias"], jnp.zeros((2, 32)))
        chex.assert_trees_all_equal(params["layers"]["mlp_norm"]["scale"], jnp.ones((2, 24)))

    def test_remat_changes_no_gradient(self):
        tokens, params = new_tokens(1, 2, 12), new_params(CONFIG)

        def gradient(remat):
            config = dataclasses.replace(CONFIG, remat=remat)
            return jax.jit(jax.grad(lambda p: qwen2.token_logprobs(config, p, tokens)[0].sum()))(params)

        expected = gradient(False)
        for remat in (True, "dots_with_no_batch_dims_saveable"):
            chex.assert_trees_all_close(gradient(remat), expected, rtol=1e-4, atol=1e-3)

    def test_program_does_not_grow_with_depth(self):
        def equations(layers):
            config = dataclasses.replace(CONFIG, num_layers=layers)
            params = jax.eval_shape(lambda: qwen2.init(config, jax.random.key(0)))
            cache = jax.eval_shape(lambda: kv_cache.init(config, 2, 16))
            tokens, counts = jax.ShapeDtypeStruct((2, 8), jnp.int32), jax.ShapeDtypeStruct((2,), jnp.int32)
            programs = (
                jax.make_jaxpr(jax.grad(lambda p, t: qwen2.token_logprobs(config, p, t)[0].sum()))(params, tokens),
                jax.make_jaxpr(functools.partial(qwen2.extend, config))(params, cache, tokens, counts),
                jax.make_jaxpr(functools.partial(qwen2.init, config))(jax.random.key(0)),
            )
            return [str(program).count(" = ") for program in programs]

        self.assertEqual(equations(2), equations(6))

    def test_packed_rows_equal_separate_rows(self):
        """Segments of 8 tokens, two in one row with padding behind, against rows of their own: values and gradients."""
        params, tokens = new_params(CONFIG), new_tokens(1, 1, 20)
        segments = jnp.array([[1] * 8 + [2] * 8 + [0] * 4])
        positions = jnp.array([[*range(8), *range(8), *range(4)]])
        weights = jax.random.normal(jax.random.key(2), (2, 1, 20))

        def packed(params):
            scores = jnp.stack(qwen2.token_logprobs(CONFIG, params, tokens, positions=positions, segment_ids=segments))
            return jnp.sum(weights * scores), scores

        def separate(params):
            scores = jnp.stack(qwen2.token_logprobs(CONFIG, params, tokens[0, :16].reshape(2, 8)))
            scores = jnp.pad(scores.reshape(2, 1, 16), [(0, 0), (0, 0), (0, 4)])
            return jnp.sum(weights * scores), scores

        chex.assert_trees_all_close(
            *(jax.jit(jax.grad(f, has_aux=True))(params) for f in (packed, separate)), rtol=1e-4, atol=2e-4
        )


class TokenLogprobsTest(chex.TestCase):
    @parameterized.parameters(
        # words, words at a time, shards: parts that fit, that do not, one part for all
        (61, 10, 1, False),
        (61, 1000, 1, True),
        (60, 12, 1, False),
        (60, 20, 2, True),
        (62, 20, 2, False),
        (62, 20, 2, True),
    )
    def test_equals_log_softmax_of_forward(self, words, chunk, shards, tied):
        """Values and gradients at a temperature."""
        config = dataclasses.replace(CONFIG, vocab_size=words, tie_embeddings=tied)
        params, tokens = new_params(config), new_tokens(1, 2, 11) % words
        weights = jax.random.normal(jax.random.key(2), (2, 2, 11))

        def whole(params):
            logprobs = jax.nn.log_softmax(qwen2.forward(config, params, tokens)[:, :-1] / 0.7)
            chosen = jnp.take_along_axis(logprobs, tokens[:, 1:, None], axis=-1)[..., 0]
            entropy = -jnp.sum(jnp.exp(logprobs) * logprobs, axis=-1)
            scores = jnp.pad(jnp.stack([chosen, entropy]), [(0, 0), (0, 0), (1, 0)])
            return jnp.sum(weights * scores), scores

        def in_parts(params):
            options = {"temperature": 0.7, "chunk": chunk, "vocab_shards": shards}
            scores = jnp.stack(qwen2.token_logprobs(config, params, tokens, **options))
            return jnp.sum(weights * scores), scores

        expected, actual = (jax.jit(jax.grad(f, has_aux=True))(params) for f in (whole, in_parts))
        chex.assert_trees_all_close(actual, expected, rtol=1e-4, atol=2e-4)

    def test_parts_are_of_the_size_that_wastes_least(self):
        for words, shards, size in ((151936, 1, 4748), (152064, 1, 6912), (152064, 2, 3456), (49152, 1, 8192)):
            layout = scoring.Layout(True, words, shards)
            self.assertEqual((layout.size, layout.parts * size * shards), (size, words))
        self.assertEqual(scoring.Layout(True, 100_003).size, 8192)  # a prime: the last part is padded

    def test_extreme_logits_are_exact(self):
        """Words that have no chance at all, and differences far beyond the range of the exponential."""
        layout = scoring.Layout(True, 4, part=2)
        weights = jnp.array([[0.0], [1e4], [-1e4], [1e4]])
        targets, states, wanted = jnp.array([[3, 0]]), jnp.array([[[1.0], [0.0]]]), jnp.ones((1, 2), bool)
        (chosen, entropy), back = jax.vjp(
            lambda w, x: scoring.score_targets(layout, w, x, targets, wanted), weights, states
        )
        np.testing.assert_allclose(chosen, [[-np.log(2), -np.log(4)]], rtol=1e-6)
        np.testing.assert_allclose(entropy, [[np.log(2), np.log(4)]], rtol=1e-6)
        of_weights, of_states = back((jnp.ones((1, 2)), jnp.ones((1, 2))))
        np.testing.assert_allclose(of_weights[:, 0], [0, -0.5, 0, 0.5], atol=1e-6)
        chex.assert_tree_all_finite(of_states)

    @parameterized.parameters(True, False)
    def test_only_what_is_wanted_goes_through_the_head(self, words_first):
        """Blocks of 4: row 0 wants 3 positions, row 1 wants 7; NaN beyond their two blocks would show."""
        layout = scoring.Layout(words_first, 10, part=4, block=4, temperature=0.7)
        weights = jax.random.normal(jax.random.key(0), (10, 5) if words_first else (5, 10))
        states, targets = jax.random.normal(jax.random.key(1), (2, 21, 5)), new_tokens(2, 2, 21) % 10
        wanted = jnp.zeros((2, 21), bool).at[0, jnp.array([4, 11, 20])].set(True).at[1, 9:16].set(True)
        spread = jax.random.normal(jax.random.key(3), (2, 2, 21))  # weights of the results, wanted or not

        def whole(weights, states):
            logits = jnp.where(wanted[..., None], states, 0) @ (weights.T if words_first else weights) / 0.7
            logprobs = jax.nn.log_softmax(logits)
            chosen = jnp.take_along_axis(logprobs, targets[..., None], axis=-1)[..., 0]
            scores = jnp.stack([chosen, -jnp.sum(jnp.exp(logprobs) * logprobs, axis=-1)])
            return jnp.sum(spread * scores, where=wanted), jnp.where(wanted, scores, 0)

        def in_blocks(weights, states):
            scores = jnp.stack(scoring.score_targets(layout, weights, states, targets, wanted))
            return jnp.sum(spread * scores), scores

        late = jnp.cumsum(~wanted, axis=1) > 21 - 8  # the unwanted of row 0 and 1 that no second block reaches
        broken = jnp.where(late[..., None] & ~wanted[..., None], jnp.nan, states)
        expected, actual = (
            jax.jit(jax.grad(f, argnums=(0, 1), has_aux=True))(weights, x)
            for f, x in ((whole, states), (in_blocks, broken))
        )
        chex.assert_trees_all_close(actual, expected, atol=1e-5)

    def test_a_mask_leaves_the_rest_out(self):
        params, tokens = new_params(CONFIG), new_tokens(1, 2, 11)
        mask = jnp.arange(11) % 3 == jnp.array([[0], [1]])
        everything, masked = (qwen2.token_logprobs(CONFIG, params, tokens, mask=m) for m in (None, mask))
        chex.assert_trees_all_close(masked, jax.tree.map(lambda x: jnp.where(mask, x, 0), everything), atol=1e-6)

    def test_logits_of_all_words_never_exist(self):
        """No array of the program, forward or backward, has more than one part's worth of vocabulary in it."""
        config = dataclasses.replace(CONFIG, vocab_size=4999)
        params = jax.eval_shape(lambda: qwen2.init(config, jax.random.key(0)))
        tokens = jax.ShapeDtypeStruct((2, 32), jnp.int32)
        total = jax.jit(jax.grad(lambda p, t: qwen2.token_logprobs(config, p, t, chunk=1000)[0].sum()))
        program = total.lower(params, tokens).compile().as_text()
        for shape in ("2,32,4999]", "2,31,4999]", "64,4999]", "4999,64]", "64,5000]", "5000,64]"):
            self.assertNotIn(shape, program)
        self.assertRegex(program, r"2,32,1,1000\]|64,1000\]")


if __name__ == "__main__":
    absltest.main()
