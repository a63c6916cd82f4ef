"""The lab: whole runs of CMPO inside one jitted function, with a small policy in the gym without words.

history = jax.jit(train)(LabConfig(target=0.3), 0)
"""

from cmpo.lab.learning import History, train
from cmpo.lab.plan import LabConfig

__all__ = ["History", "LabConfig", "train"]
