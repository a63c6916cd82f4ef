"""The sections of a config that are FDS's own, beside its endpoints `user` and `judge`."""

from typing import Annotated, Literal

import pydantic

from rollouts.domains.fds.shift import parse_shift
from rollouts.sections import Count, NotNegative, Section


class DataSettings(Section):
    """Where scenarios come from, see docs/data.md."""

    path: str = ""  # a released parquet file; "": the generator
    difficulty: Literal["hard", "normal"] = "hard"  # the generator's mix of cooperation levels
    endless: bool = True  # the generator always makes new scenarios; False: the paper's number, epoch by epoch
    shift: str = "none"  # of held-out scenarios: none, phrasing, noise, facts or all, see `shift.parse_shift`
    dir: str = ""  # of prepared records; "": $TFDS_DATA_DIR or ~/tensorflow_datasets, as in that library

    @pydantic.field_validator("shift")
    @classmethod
    def refuse_unknown_shift(cls, text: str) -> str:
        """Raises ValueError where `parse_shift` does."""
        parse_shift(text)
        return text


class WeightSettings(Section):
    """What the judge's principles weigh in a turn's process reward."""

    persona: NotNegative = 1.0
    stage: NotNegative = 1.0
    quality: NotNegative = 1.0
    rules: NotNegative = 1.0

    @pydantic.model_validator(mode="after")
    def refuse_nothing(self) -> "WeightSettings":
        """Raises ValueError where all are 0."""
        if not any(self.model_dump().values()):
            raise ValueError("expected one above 0, got none")
        return self


class JudgeSettings(Section):
    """How the judge's answers are taken."""

    weights: WeightSettings = WeightSettings()
    votes: Count = 1  # answers that are averaged, each with its own seed: needs a temperature above 0


class PenaltySettings(Section):
    """What a breach of the turn format costs."""

    format_outcome: Annotated[float, pydantic.Field(le=0)] = -3.0  # the paper: 0, the authors' code: -10


class FdsSettings(Section):
    """All of them."""

    data: DataSettings = DataSettings()
    judge: JudgeSettings = JudgeSettings()
    episode: PenaltySettings = PenaltySettings()
