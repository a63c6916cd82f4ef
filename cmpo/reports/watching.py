"""Serves the page of runs that still go on: it only reads what they write, and keeps what it has read."""

import asyncio
import glob
import hashlib
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from cmpo.reports import run_data
from cmpo.reports.chunks import write_json
from cmpo.reports.describing import Described, Known, describe_run
from cmpo.reports.run_page import compare_all, render_page

_HEADERS = {
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


Page = tuple[Sequence[Described], Sequence[Mapping[str, Any]]]
"""Runs, and how the first compares with the others."""


class Watch:
    """Describes runs anew when one of their files has changed; batches of dialogues are read once.

    If the files can no longer be read, what was read last is what there is, with a notice.
    """

    def __init__(self, folders: Sequence[str | os.PathLike], scans: Sequence[str] = ()):
        self._folders, self._scans = [pathlib.Path(folder) for folder in folders], scans
        self._known: Known = {}
        self._marks: list[Any] = []
        self._page: Page = [], []
        self._reading = asyncio.Lock()

    async def describe(self) -> Page:
        """Describes the runs as they are now. Raises as `run_page.write_report` does, but only at first."""
        async with self._reading:
            return await run_in_threadpool(self._describe)

    def _describe(self) -> Page:
        try:
            return self._read_news()
        except (OSError, ValueError) as error:  # such as a file that a restart removed while it was read
            if not self._marks:
                raise
            described, comparisons = self._page
            notice = {"notice": f"This is what was read last: {error}"}
            return [one._replace(data=one.data | notice) for one in described], comparisons

    def _read_news(self) -> Page:
        if (marks := [_mark_files(folder) for folder in self._folders]) != self._marks:
            runs = run_data.load_sources(self._folders)
            described = [describe_run(run, self._scans, self._known) for run in runs]
            self._page, self._marks = (described, compare_all(runs, described)), marks
        return self._page


def _mark_files(folder: pathlib.Path) -> list[Any]:
    """Lists what tells the files that a page is made of from their successors."""
    patterns = ("metrics.jsonl", "config.json", "transcripts/*.jsonl", "evaluation_*")
    patterns = (f"{glob.escape(folder.stem)}.*",) if (alone := folder.is_file()) else patterns
    inside = folder.parent if alone else folder
    stats = [(path, path.stat()) for pattern in patterns for path in sorted(inside.glob(pattern))]
    return [(path, stat.st_mtime_ns, stat.st_size) for path, stat in stats]


def make_app(watch: Watch) -> Starlette:
    """Makes the application: the page, what it shows as data, and the dialogues of a batch as gzip."""

    async def send_page(request: Request) -> Response:
        page = render_page(*await watch.describe(), live=True)
        return Response(page, media_type="text/html", headers=_HEADERS)

    async def send_data(request: Request) -> Response:
        described, comparisons = await watch.describe()
        data = write_json({"runs": [one.data for one in described], "comparisons": comparisons})
        tag = f'"{hashlib.sha256(data.encode()).hexdigest()[:32]}"'
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers=_HEADERS)
        return Response(data, media_type="application/json", headers=_HEADERS | {"ETag": tag})

    async def send_chunk(request: Request) -> Response:
        described, _ = await watch.describe()
        number, key = request.path_params["run"], request.path_params["key"]
        chunk = described[number].chunks.get(key) if number < len(described) else None
        if chunk is None:
            return Response(status_code=404, headers=_HEADERS)
        return Response(chunk, media_type="application/gzip", headers=_HEADERS)

    return Starlette(
        routes=[
            Route("/", send_page),
            Route("/data", send_data),
            Route("/chunks/{run:int}/{key}", send_chunk),
        ]
    )
