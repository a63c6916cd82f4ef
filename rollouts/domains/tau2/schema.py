"""The sections of a config that are tau2's own, beside its endpoint `user`, which only `data.user=llm` asks."""

from typing import Annotated, Literal

import pydantic

from rollouts.sections import Count, Section

Splits = Annotated[str, pydantic.Field(pattern=r"^([a-z_]+(\+[a-z_]+)*)?$")]


class SplitSettings(Section):
    """Which tasks there are, and what the agent is told of its work."""

    domain: Literal["telecom", "retail", "airline", "mock"] = "telecom"
    train: Splits = "train"  # splits to train on, joined by +; telecom also has `extra`, all tasks beyond its benchmark
    test: Splits = "test"  # splits for evaluations; no task may be in both
    prompt: Literal["full", "short"] = "full"  # what the official agent is told, or one line: it learns from examples
    user: Literal["rules", "llm", "solo"] = "rules"  # who calls; rules: of telecom alone; solo: nobody
    version: str = ""  # of the benchmark's package; "": the tested one


class LimitSettings(Section):
    """How long a dialogue may go on."""

    max_steps: Count = 100  # messages of everybody
    max_errors: Count = 10  # calls of tools that failed, everybody's


class Tau2Settings(Section):
    """All of them."""

    data: SplitSettings = SplitSettings()
    episode: LimitSettings = LimitSettings()
