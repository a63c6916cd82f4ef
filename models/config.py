"""The sizes and numerics of a model as plain, hashable data."""

import dataclasses

import jax
import jax.numpy as jnp

KERNELS = ("blocks", "cudnn", "xla")
"""What computes attention over whole rows, see `models.attention.causal_attention`."""
HALF = ("bfloat16", "float16")
"""The types of half precision."""


@dataclasses.dataclass(frozen=True)
class Yarn:
    """RoPE scaling by YaRN (https://arxiv.org/abs/2309.00071), which stretches a model's context `factor` times.

    Attributes:
      factor: new over old context length.
      original_positions: the context length the model was trained with, in tokens.
      beta_fast: a wavelength with more rotations than this within the old context is not stretched.
      beta_slow: one with fewer than this is stretched in full; in between, linearly.
      attention_factor: scales cosine and sine; None: 0.1 ln(factor) + 1, the paper's.
      truncate: whether the bounds of the ramp are rounded to whole dimensions.
    """

    factor: float
    original_positions: int
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    attention_factor: float | None = None
    truncate: bool = True

    def __post_init__(self):
        if self.factor < 1:
            raise ValueError(f"yarn.factor must be at least 1, got {self.factor}")
        if self.original_positions < 1:
            raise ValueError(f"yarn.original_positions must be positive, got {self.original_positions}")


@dataclasses.dataclass(frozen=True)
class Qwen2Config:
    """Sizes and numerics of a model, named as far as sensible after Hugging Face's `config.json`.

    Attributes:
      vocab_size: V, rows of the embedding.
      hidden_size: D.
      intermediate_size: F.
      num_layers: L.
      num_heads: H.
      num_kv_heads: K, divides H.
      head_dim: A, even; 0 stands for D / H.
      rope_theta: base of the rotary embedding's wavelengths.
      yarn: how the rotary embedding is stretched beyond the trained context; None: not at all.
      sliding_window: how many tokens back a token sees, itself included, in the layers from `window_from` on; 0: all.
      window_from: first layer with a sliding window.
      rms_norm_eps: added to the mean square.
      tie_embeddings: whether the output head is the embedding, transposed.
      max_positions: longest sequence, in tokens.
      attention_bias: whether the q, k and v projections have biases (Qwen2.5: yes; Llama: no).
      initializer_range: standard deviation of new matrices and embeddings.
      dtype: of matrix products and activations; norms, softmax and logits are always float32.
      remat: what the backward pass computes again: nothing (False), each layer (True), or what the named policy of
        `jax.checkpoint_policies` does not keep.
      attention: one of KERNELS.
      lora_rank: rank of the adapters on attention and MLP; 0: none.
      lora_alpha: the adapters' output is scaled by lora_alpha / lora_rank.
    """

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int = 0
    rope_theta: float = 1e6
    yarn: Yarn | None = None
    sliding_window: int = 0
    window_from: int = 0
    rms_norm_eps: float = 1e-6
    tie_embeddings: bool = True
    max_positions: int = 32768
    attention_bias: bool = True
    initializer_range: float = 0.02
    dtype: str = "float32"
    remat: bool | str = False
    attention: str = "blocks"
    lora_rank: int = 0
    lora_alpha: float = 16.0

    def __post_init__(self):
        sizes = ("vocab_size", "hidden_size", "intermediate_size", "num_layers", "num_heads", "num_kv_heads")
        for name in (*sizes, "max_positions"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        if not self.head_dim:
            if self.hidden_size % self.num_heads:
                raise ValueError(f"hidden_size {self.hidden_size} is not a multiple of num_heads {self.num_heads}")
            object.__setattr__(self, "head_dim", self.hidden_size // self.num_heads)
        if self.head_dim < 2 or self.head_dim % 2:
            raise ValueError(
                "head_dim must be positive and even for the rotary embedding, "
                f"got {self.head_dim} (of hidden_size {self.hidden_size}, num_heads {self.num_heads})"
            )
        if self.num_heads % self.num_kv_heads:
            raise ValueError(f"num_heads {self.num_heads} is not a multiple of num_kv_heads {self.num_kv_heads}")
        if self.sliding_window < 0 or self.window_from < 0:
            raise ValueError(
                f"sliding_window and window_from must not be negative, got {self.sliding_window}, {self.window_from}"
            )
        if not jnp.issubdtype(self.dtype, jnp.floating):
            raise ValueError(f"dtype must be a float type, got {self.dtype!r}")
        if self.attention not in KERNELS:
            raise ValueError(f"attention must be one of {KERNELS}, got {self.attention!r}")
        if self.attention == "cudnn" and self.dtype not in HALF:
            raise ValueError(f"attention 'cudnn' needs dtype bfloat16 or float16, got {self.dtype!r}")
        if self.lora_rank < 0:
            raise ValueError(f"lora_rank must not be negative, got {self.lora_rank}")
        if isinstance(self.remat, str) and not hasattr(jax.checkpoint_policies, self.remat):
            raise ValueError(f"remat must be a bool or the name of a jax.checkpoint_policies, got {self.remat!r}")

    @property
    def lora_scale(self) -> float:
        """What the adapters' output is multiplied by; 0 without adapters."""
        return self.lora_alpha / self.lora_rank if self.lora_rank else 0.0
