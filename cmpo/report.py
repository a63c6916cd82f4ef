"""Writes the page of a run: ``python -m cmpo.report --workdir=DIR`` makes DIR/report.html, a file that stands alone.

With ``--png=PATH`` it also saves the curves as a picture.
"""

from absl import flags

from cmpo.cli import command
from cmpo.reports import run_page

_PNG = flags.DEFINE_string(
    "png",
    None,
    "File to save the curves in, as a picture.",
    allow_override=True,  # cmpo.card has a flag of this name, too
)


def run() -> None:
    """Writes the page, and the picture if asked; prints where they are."""
    print(run_page.write_report(command.WORKDIR.value))
    if _PNG.value:
        run_page.save_curves(command.WORKDIR.value, _PNG.value)
        print(_PNG.value)


if __name__ == "__main__":
    command.run(run, required=["workdir"])
