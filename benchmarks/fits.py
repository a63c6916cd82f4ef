"""What each size of Qwen2.5 needs on each device, by mesh and optimizer: prints the table of docs/memory.md.

    .venv/bin/python -m benchmarks.fits

From shapes, by `cmpo.training.memory_plan`; nothing is allocated. A cell that does not fit is in brackets.
"""

from cmpo.distributed import sharding
from cmpo.training import memory_plan, model_source
from configs import fds

SIZES = ("0.5b", "1.5b", "3b", "7b", "14b", "32b", "72b")
MESHES = ((1, 1, 1), (1, 2, 1), (1, 8, 1), (1, 4, 2), (1, 8, 2), (1, 8, 8))  # data, fsdp, tensor
OPTIMIZERS = {
    "AdamW": {},
    "AdamW, bfloat16 momentum": {"train.momentum_dtype": "bfloat16"},
    "LoRA of rank 32": {"model.lora_rank": 32},
}
GIGABYTES = 80


def rows(size: str) -> list[str]:
    """GB on each device, a row of the table for each optimizer."""
    lines = []
    for optimizer, changes in OPTIMIZERS.items():
        config = fds.get_config(f"model=qwen2.5-{size}")
        config.update_from_flattened_dict(changes)
        lines.append(f"| {size.upper()} | {optimizer} | {' | '.join(_cell(config, mesh) for mesh in MESHES)} |")
    return lines


def _cell(config, mesh) -> str:
    sizes = dict(zip(sharding.AXES, mesh, strict=True))
    try:
        needs = memory_plan.estimate_needs(config, model_source.find_architecture(config, None), sizes)
        needed = memory_plan.find_peak(needs) / 1e9
    except ValueError:  # the mesh does not divide the model
        return "-"
    return f"{needed:.0f}" if needed <= memory_plan.USABLE * GIGABYTES else f"({needed:.0f})"


if __name__ == "__main__":
    print(f"| | | {' | '.join('x'.join(map(str, mesh)) for mesh in MESHES)} |")
    print("|---|---|" + "---:|" * len(MESHES))
    for size in SIZES:
        print("\n".join(rows(size)))
