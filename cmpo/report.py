"""Writes the page of a run: ``python -m cmpo.report --workdir=DIR`` makes DIR/report.html, a file that stands alone.

``--against=DIR`` compares it with another run, on one page; ``--scan="refund|callback"`` looks for words in all that
the agent said; both may be given several times. ``--png=PATH`` also saves the curves as a picture.
"""

from absl import flags

from cmpo.cli import command
from cmpo.reports import run_page

_AGAINST = flags.DEFINE_multi_string(
    "against",
    [],
    "Directory of a run to compare with; may be given several times.",
    allow_override=True,  # cmpo.compare has a flag of this name, too
)
_SCAN = flags.DEFINE_multi_string("scan", [], "Regular expression to look for in what the agent said.")
_PNG = flags.DEFINE_string(
    "png",
    None,
    "File to save the curves in, as a picture.",
    allow_override=True,  # cmpo.card has a flag of this name, too
)


def run() -> None:
    """Writes the page, and the picture if asked; prints where they are."""
    workdir, options = command.WORKDIR.value, {"against": _AGAINST.value, "scans": _SCAN.value}
    print(run_page.write_report(workdir, out=command.OUT.value or "", **options))
    if _PNG.value:
        run_page.save_curves(workdir, _PNG.value)
        print(_PNG.value)


if __name__ == "__main__":
    command.run(run, required=["workdir"])
