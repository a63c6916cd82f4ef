import pathlib, subprocess, os

T = "cmpo/reports/templates/"
M = [
    (T + "chart.js", "for (const chart of this.charts) chart.point();", "this.charts[0].point();", "trend"),
    (T + "dialogue.js", "if (part && part.turn === turn)", "if (part && part.turn === turn + 1)", "trend"),
    (T + "steps.js", "words.toLowerCase().includes(text.toLowerCase())", "words.includes(text)", "filtered"),
    (T + "steps.js", 'if (cost === "none" && spent(dialogue)) return false;', "", "filtered"),
    ("cmpo/reports/chunks.py", '.replace("<", "\\\\u003c")', "", "ends_a_script"),
    ("cmpo/reports/run_page.py", '"connect-src": "\'self\'"} if live', '"connect-src": "*"} if True', "allows_nothing"),
    (T + "elements.js", "if (text.length <= LONG) {", "if (true) {", "others_wrote"),
    (T + "main.js", "if (turn) turn.scrollIntoView", "if (false) turn.scrollIntoView", "trend"),
    (T + "data.js", "RUNS.splice(0, RUNS.length, ...news.runs);", "", "live or follow"),
    (
        "cmpo/reports/comparing.py",
        'found[step, digests[group["id"]], dialogue["index"]]',
        'found[step, group["id"], dialogue["index"]]',
        "one_name",
    ),
    ("cmpo/reports/run_data.py", "if step <= run.step:", "if True:", "present_past"),
    (
        T + "curves.js",
        "plain.length === 1 ? [{ ...found, name: run.name",
        "plain.length === 0 ? [{ ...found, name: run.name",
        "beside",
    ),
    (T + "saving.js", 'theirs[number].removeAttribute("class");', "", "saved"),
]
env = os.environ | {"PYTHONPATH": os.getcwd()}
for f, a, b, k in M:
    p = pathlib.Path(f)
    s = p.read_text()
    if a not in s:
        print("NOPATTERN", f, a)
        continue
    p.write_text(s.replace(a, b, 1))
    try:
        r = subprocess.run(
            [".venv/bin/python", "-m", "pytest", "-q", "-n", "0", "tests/cmpo/reports", "-x", "-k", k],
            env=env,
            capture_output=True,
            text=True,
        )
        print("killed" if r.returncode == 1 else f"SURVIVED rc={r.returncode}", f, a[:50])
    finally:
        p.write_text(s)
