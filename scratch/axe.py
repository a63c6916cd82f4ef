from playwright.sync_api import sync_playwright
import sys

src = open("/tmp/axe/package/axe.min.js").read()
with sync_playwright() as p:
    b = p.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
    for f, hash_ in [
        ("mid/report.html", h) for h in ("curves", "steps", "step/40", "step/40/3", "step/40/3/1/2", "scans", "config")
    ] + [("mid/compare.html", "compare"), ("mid/compare.html", "step/40/3/1")]:
        for scheme, w in (("light", 1440), ("dark", 390)):
            c = b.new_context(bypass_csp=True, color_scheme=scheme, viewport={"width": w, "height": 900})
            pg = c.new_page()
            pg.goto(f"file:///tmp/pg/{f}#{hash_}")
            pg.wait_for_timeout(500)
            pg.evaluate(src)
            r = pg.evaluate("axe.run()")
            for v in r["violations"]:
                print(
                    f,
                    hash_,
                    scheme,
                    v["impact"],
                    v["id"],
                    len(v["nodes"]),
                    v["nodes"][0]["html"][:160],
                    v["nodes"][0].get("failureSummary", "")[:160].replace("\n", " "),
                )
            sw = pg.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
            if sw[0] > sw[1]:
                print("WIDE", f, hash_, w, sw)
            c.close()
