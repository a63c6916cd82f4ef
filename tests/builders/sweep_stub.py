"""In the place of ``python -m cmpo.main`` and ``cmpo.evaluate`` in a sweep: says what it was called with, and obeys.

It waits for as long as the file `wait` stands beside the sweep, and fails where a setting says so.
"""

import json
import pathlib
import shutil
import sys
import time

module, *arguments = sys.argv[1:]
given = dict(argument.removeprefix("--").split("=", 1) for argument in arguments)
workdir = pathlib.Path(given["workdir"])
sweep = workdir.parent.parent
with (sweep / "calls").open("a") as calls:
    calls.write(f"{module} {workdir.relative_to(sweep)} {given.get('config.train.rl_steps', '')}\n")
while (sweep / "wait").exists() and workdir.parent.name == "runs":
    time.sleep(0.05)  # until SIGTERM
if given.get("config.pid.ki") == "0.0":
    sys.exit("error: it\nwill not do")
workdir.mkdir(parents=True, exist_ok=True)
if module == "cmpo.main":
    phase = "sft" if workdir.parent.name == "starts" else "rl"
    line = {"step": 1, "phase": phase, "satisfaction": 3.0, "voucher_rate": 0.5, "lambda": 1.0, "seconds": {"all": 6.0}}
    with (workdir / "metrics.jsonl").open("a") as metrics:
        metrics.write(json.dumps(line) + "\n")
else:
    shutil.copyfile(sweep / f"result_{given['config.train.seed']}.json", given["out"])
