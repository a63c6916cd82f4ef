"""Lists the curves of a run: columns of numbers by step, and which of them are drawn together, under which heading."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from cmpo.reports.run_data import Run, select_phase
from cmpo.reports.tables import format_number
from rollouts.sections import flatten_config

Columns = dict[str, list[float | None]]
_DIGITS = 5  # of numbers in curves
_NOT_DRAWN = {"step", "dialogues_ok"}
_COUNTS = ("ends.", "dialogues_failed.", "dialogues_replaced.")  # 0 where a record does not name them


def collect_columns(
    run: Run, words: Mapping[int, Mapping[str, float]], scans: Mapping[int, Mapping[str, float]]
) -> dict[str, Any]:
    """Collects the numbers of a run by source: `sft` and `rl`, its records by phase; `words` and `scans`, by step.

    Returns for each source that has any its steps and columns by name; names of nested numbers are joined by dots.
    """
    sources = {name: [flatten_config(record) for record in select_phase(run.records, name)] for name in ("sft", "rl")}
    for name, by_step in (("words", words), ("scans", scans)):
        sources[name] = [{"step": step, **found} for step, found in sorted(by_step.items())]
    return {
        name: {"step": [row["step"] for row in rows], "columns": _list_columns(rows)}
        for name, rows in sources.items()
        if rows
    }


def _list_columns(rows: Sequence[Mapping[str, Any]]) -> Columns:
    names = dict.fromkeys(name for row in rows for name, value in row.items() if _is_number(value))
    absent = {name: 0 if name.startswith(_COUNTS) else None for name in names}
    columns = {name: [_shorten(row.get(name, absent[name])) for row in rows] for name in names.keys() - _NOT_DRAWN}
    return {name: columns[name] for name in names if any(value is not None for value in columns.get(name, ()))}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _shorten(value: Any) -> float | None:
    if not _is_number(value):
        return None
    return value if isinstance(value, int) else float(f"{value:.{_DIGITS}g}")


def list_sections(run: Run, columns: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Lists the panels of the page's curves, section by section; those without numbers are left out.

    What an algorithm records beyond what is named here is drawn in a last section of its own.
    """
    drawn: set[str] = set()

    def panel(title: str, *series: tuple[str, str] | tuple[str, str, str], **options: Any) -> Iterator[dict[str, Any]]:
        """Yields a panel of series that are in none yet: name, column, and role where it is not a plain line."""
        there = [
            {"name": name, "column": column, "role": (*role, "line")[0]}
            for name, column, *role in series
            if _has_column(columns, column) and column not in drawn
        ]
        drawn.update(one["column"] for one in there)
        if there:
            yield {"id": there[0]["column"], "title": title, "series": there, **options}

    def nested(title: str, prefix: str, **options: Any) -> Iterator[dict[str, Any]]:
        series = [(name[len(prefix) :], name) for name in _find_columns(columns, prefix)]
        return panel(title, *series, named=True, **options)

    sections = [
        {"title": "What is learnt", "panels": list(_list_goals(run, panel))},
        {
            "title": "Rewards",
            "panels": [
                *nested("Judge's scores by principle", "words.scores."),
                *nested("How well each principle tells the outcome", "rl.judge_correlation.", note=_CORRELATION),
                *panel("Dialogues finished", ("finished", "rl.finish_rate"), percent=True),
                *nested("How dialogues ended", "rl.ends."),
            ],
        },
        {
            "title": "Updates",
            "panels": [
                *panel("Policy loss", ("loss", "rl.loss"), ("policy term", "rl.policy_loss", "dashed")),
                *panel("KL to the reference", ("KL", "rl.kl")),
                *panel("Entropy, nats per token", ("entropy", "rl.entropy")),
                *panel("Tokens clipped", ("clipped", "rl.clip_fraction"), percent=True),
                *panel("Largest gap of sampler and trainer, nats", ("gap", "rl.logprob_gap_max")),
                *panel("Norm of the gradient", ("norm", "rl.grad_norm")),
                *panel("Ratio to the sampling policy", ("mean", "rl.ratio_mean"), ("largest", "rl.ratio_max")),
                *panel("Updates skipped", ("skipped", "rl.updates_skipped")),
            ],
        },
        {
            "title": "Warm-up on demonstrations (SFT)",
            "panels": [
                *panel("Warm-up loss", ("loss", "sft.loss")),
                *panel("Warm-up entropy, nats per token", ("entropy", "sft.entropy")),
                *panel("Norm of the warm-up's gradient", ("norm", "sft.grad_norm")),
                *panel("Tokens per second of the warm-up", ("tokens", "sft.tokens_per_second")),
            ],
        },
        {
            "title": "Dialogues",
            "panels": [
                *panel("Turns per dialogue", ("turns", "rl.turns_mean")),
                *panel("Length, characters", ("reply", "words.length"), ("thought", "words.thought")),
                *panel("Different replies, of all", ("different", "words.distinct"), percent=True),
                *nested("Dialogues with what the scanners look for", "scans.", percent=True),
                *nested("Failed dialogues by cause", "rl.dialogues_failed."),
                *nested("Dialogues played again, by cause", "rl.dialogues_replaced."),
            ],
        },
        {
            "title": "Time and spend",
            "panels": [
                *panel("Tokens per second", ("tokens", "rl.tokens_per_second")),
                *nested("Seconds by phase of a step", "rl.seconds."),
                *panel("Tokens sampled in a step", ("tokens", "rl.new_tokens")),
                *(
                    found
                    for what in ("calls", "tokens", "cost")
                    for found in panel(
                        f"Spent on endpoints: {what}",
                        *(
                            (name.removeprefix("rl.spent.").removesuffix(f"_{what}"), name)
                            for name in _find_columns(columns, "rl.spent.")
                            if name.endswith(f"_{what}")
                        ),
                    )
                ),
            ],
        },
    ]
    rest = [name for source in ("rl", "words") for name in _find_columns(columns, f"{source}.") if name not in drawn]
    others = [found for name in rest for found in panel(_name_column(name), (name.partition(".")[2], name))]
    return [section for section in (*sections, {"title": "More", "panels": others}) if section["panels"]]


_CORRELATION = "Spearman's rank correlation with the outcome. Near 0, a principle teaches something else."


def _list_goals(run: Run, panel: Callable[..., Iterator[dict[str, Any]]]) -> Iterator[dict[str, Any]]:
    """Yields the objective, each cost beside its budget, with its multiplier, and what else the domain measures."""
    domain, several = run.domain, len(run.domain.costs) > 1
    yield from panel(domain.panel or domain.objective, (domain.objective, f"rl.{domain.objective}"))
    for number, cost in enumerate(domain.costs):
        budgets = run.budgets[number : number + 1]
        yield from panel(
            cost.panel,
            ("each step", f"rl.{cost.measure}", "faint"),
            ("smoothed", f"rl.{cost.measure}_smoothed"),
            percent=cost.total == "any",
            lines=[{"at": budget, "label": f"budget {format_number(budget, cost.form)}"} for budget in budgets],
            alarm=cost.name,
        )
        own = f".{cost.name}" if several else ""
        yield from panel(
            f"Multiplier of {cost.heading}" if several else "Multiplier",
            ("multiplier", f"rl.lambda{own}"),
            ("price, median group", f"rl.effective_price{own}", "dashed"),
            ("lowest tenth", f"rl.effective_price_low{own}", "faint"),
            ("highest tenth", f"rl.effective_price_high{own}", "faint"),
        )
    yield from panel("Process reward, 0 to 1", ("process reward", "rl.process_reward"))
    for name in domain.scores:
        if name != domain.objective:
            measure = domain.measures.get(name)
            yield from panel(measure.heading if measure else name, (name, f"rl.{name}"))


def _has_column(columns: Mapping[str, Any], name: str) -> bool:
    source, _, inner = name.partition(".")
    return source in columns and inner in columns[source]["columns"]


def _find_columns(columns: Mapping[str, Any], prefix: str) -> list[str]:
    source = prefix.partition(".")[0]
    names = (f"{source}.{name}" for name in columns.get(source, {"columns": ()})["columns"])
    return [name for name in names if name.startswith(prefix)]


def _name_column(name: str) -> str:
    words = name.partition(".")[2].replace("_", " ").replace(".", ", ")
    return words[:1].upper() + words[1:]
