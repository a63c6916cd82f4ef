"""Low-rank adapters (LoRA, https://arxiv.org/abs/2106.09685) on the matrices of attention and MLP.

A layer computes x W + b + (alpha / rank) (x A) B, with A [in, rank] and B [rank, out]. B starts at 0, so that the
adapted model starts equal to the model without adapters. The adapters are a tree of their own: `split` takes them from
the frozen rest, and `combine` joins both wherever the model is run.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx, traverse_util

from models.config import Qwen2Config

A, B = "lora_a", "lora_b"

Tree = dict[str, Any]


class Linear(nnx.Linear):
    """A linear layer of the decoder, in `config.dtype`; with adapters where `config.lora_rank` asks for them."""

    def __init__(self, config: Qwen2Config, inputs: int, outputs: int, *, use_bias: bool, rngs: nnx.Rngs):
        normal = nnx.initializers.normal(config.initializer_range)
        super().__init__(inputs, outputs, use_bias=use_bias, dtype=config.dtype, kernel_init=normal, rngs=rngs)
        self.lora_scale = config.lora_scale
        if config.lora_rank:
            uniform = nnx.initializers.variance_scaling(1 / 3, "fan_in", "uniform")  # as in Hugging Face's PEFT
            self.lora_a = nnx.Param(uniform(rngs.params(), (inputs, config.lora_rank)))
            self.lora_b = nnx.Param(jnp.zeros((config.lora_rank, outputs)))

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [..., in] to [..., out]."""
        y = _product(x, self.kernel[...].astype(self.dtype))
        if self.use_bias:
            y += self.bias[...].astype(self.dtype)
        if not self.lora_scale:
            return y
        down, up = (matrix[...].astype(self.dtype) for matrix in (self.lora_a, self.lora_b))
        return y + self.lora_scale * _product(_product(x, down), up)


@jax.custom_vjp
def _product(x: jax.Array, matrix: jax.Array) -> jax.Array:
    """Multiplies x [..., in] by matrix [in, out].

    The gradient of the matrix is computed as [in, out]. JAX's own is the transpose of an [out, in], for which XLA on a
    CPU copies what it multiplies: half the speed.
    """
    return x @ matrix


def _product_forward(x, matrix):
    return x @ matrix, (x, matrix)


def _product_backward(saved, gradient):
    x, matrix = saved
    rows = tuple(range(x.ndim - 1))
    return gradient @ matrix.T, jax.lax.dot_general(x, gradient, ((rows, rows), ((), ())))


_product.defvjp(_product_forward, _product_backward)


def split(config: Qwen2Config, params: Tree) -> tuple[Tree, Tree]:
    """Returns what stays frozen and what is trained: the model and its adapters; without adapters, {} and the model."""
    if not config.lora_rank:
        return {}, params
    flat = traverse_util.flatten_dict(params)
    trained = {path: leaf for path, leaf in flat.items() if path[-1] in (A, B)}
    frozen = {path: leaf for path, leaf in flat.items() if path not in trained}
    return traverse_util.unflatten_dict(frozen), traverse_util.unflatten_dict(trained)


def combine(frozen: Tree, trained: Tree) -> Tree:
    """Reverses `split`: returns the parameters of the whole model."""
    return traverse_util.unflatten_dict(traverse_util.flatten_dict(frozen) | traverse_util.flatten_dict(trained))


def merge(config: Qwen2Config, params: Tree) -> Tree:
    """Returns the same model's parameters without adapters: W + (alpha / rank) A B in the place of W, in W's dtype."""
    flat = traverse_util.flatten_dict(params)
    for path in [path for path in flat if path[-1] == A]:
        *layer, _ = path
        product = flat.pop(path) @ flat.pop((*layer, B))  # [L, in, out]
        kernel = flat[*layer, "kernel"]
        flat[*layer, "kernel"] = (kernel + config.lora_scale * product).astype(kernel.dtype)
    return traverse_util.unflatten_dict(flat)
