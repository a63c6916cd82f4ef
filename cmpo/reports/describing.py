"""Describes a run as the scripts of its page read it: numbers, tables, and compressed batches of dialogues."""

import json
from collections.abc import Mapping, MutableMapping, Sequence
from typing import Any, NamedTuple

from cmpo.reports import comparing, curves, planes, run_data, scanning, tables
from cmpo.reports.chunks import compress_json
from cmpo.reports.dialogues import measure_words, read_groups
from cmpo.reports.run_data import Batch, Run
from cmpo.reports.scanning import Scanner
from cmpo.run.json_lines import to_json_value

_NAMED = 3  # files that a notice names


class DescribedBatch(NamedTuple):
    """A file of dialogues as a page has it."""

    dialogues: int
    chunk: bytes  # see `chunks.compress_json`
    words: Mapping[str, float]
    places: Sequence[Sequence[Sequence[int]]]  # see `scanning.scan_groups`
    worth: comparing.Worth
    torn: bool  # whether its last line was cut off
    older: int  # dialogues of an older version, which are left out


Known = MutableMapping[tuple[Any, ...], DescribedBatch]
"""Batches that were described before, by what tells a file from its successor."""


class Described(NamedTuple):
    """A run as a page has it."""

    data: dict[str, Any]  # ready for JSON
    chunks: dict[str, bytes]  # by the batch's key
    worth: comparing.Worth  # of all its dialogues


def list_scanners(run: Run, scans: Sequence[str]) -> list[Scanner]:
    """Lists the scanners for a run: of the patterns `scans`, of its domain, and of copies. Raises ValueError."""
    given = scanning.make_scanners({scan: scan for scan in scans}, "--scan")
    patterns = scanning.make_scanners(run.domain.patterns, "the domain's patterns")
    return [*given, *scanning.make_fault_scanners(run.domain.faults), *patterns, scanning.COPIES]


def describe_run(run: Run, scans: Sequence[str] = (), known: Known | None = None) -> Described:
    """Describes a run. What is in `known` is not read again, and what is read is put there.

    Raises ValueError for a damaged file, or a scan that is no regular expression.
    """
    scanners, known = list_scanners(run, scans), {} if known is None else known
    found: dict[Batch, DescribedBatch] = {}
    for batch in run_data.list_batches(run):
        stat = batch.path.stat()
        mark = (batch.path, stat.st_mtime_ns, stat.st_size)
        if mark not in known:
            known[mark] = _describe_batch(run, batch, scanners)
        found[batch] = known[mark]
    steps = {batch.step: one for batch, one in found.items() if batch.step is not None}
    shares = {step: _share_dialogues(scanners, one) for step, one in steps.items()}
    columns = curves.collect_columns(run, {step: one.words for step, one in steps.items()}, shares)
    data = {
        "name": run.name,
        "kind": "run" if run.result is None else "evaluation",
        "step": run.step,
        "notice": _describe_gaps({batch.path.name: one for batch, one in found.items()}),
        "facts": tables.list_facts(run),
        "costs": [cost.name for cost in run.domain.costs],
        "latest": tables.gather_latest(run),
        "budgets": tables.list_budgets(run),
        "alarms": tables.list_alarms(run),
        "sources": columns,
        "sections": curves.list_sections(run, columns),
        "plane": planes.describe_path(run),
        "principles": tables.gather_principles(run),
        "failures": tables.gather_failures(run),
        "evaluations": tables.gather_evaluations(run),
        "scans": scanning.describe_findings(scanners, {batch.key: one.places for batch, one in found.items()}),
        "batches": [
            {"key": batch.key, "title": batch.title, "step": batch.step, "dialogues": one.dialogues}
            for batch, one in found.items()
        ],
        "config": json.dumps(run.config, indent=2),
    }
    worth = {key: value for one in steps.values() for key, value in one.worth.items()}
    return Described(to_json_value(data), {batch.key: one.chunk for batch, one in found.items()}, worth)


def _describe_batch(run: Run, batch: Batch, scanners: Sequence[Scanner]) -> DescribedBatch:
    groups, torn, older = read_groups(run, batch)
    return DescribedBatch(
        dialogues=sum(len(group["dialogues"]) for group in groups),
        chunk=compress_json(groups),
        words=measure_words(groups),
        places=scanning.scan_groups(scanners, groups),
        worth={} if batch.step is None else comparing.measure_worth(batch.step, groups),
        torn=torn,
        older=older,
    )


def _describe_gaps(found: Mapping[str, DescribedBatch]) -> str:
    """Says in a line in which files the last line was cut off, and where dialogues are left out; "" if in none."""
    torn = _name_files([name for name, one in found.items() if one.torn])
    older = _name_files([name for name, one in found.items() if one.older])
    count = sum(one.older for one in found.values())
    texts = (
        f"The last line is cut off, and left out, in {torn}." if torn else "",
        f"{count:,} dialogues without a task, of an older version, are left out in {older}." if older else "",
    )
    return " ".join(filter(None, texts))


def _name_files(names: Sequence[str]) -> str:
    return ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")


def _share_dialogues(scanners: Sequence[Scanner], batch: DescribedBatch) -> dict[str, float]:
    return {
        scanner.name: scanning.count_dialogues(places) / max(batch.dialogues, 1)
        for scanner, places in zip(scanners, batch.places, strict=True)
    }
