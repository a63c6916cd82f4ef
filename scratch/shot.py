"""shot.py NAME FILE HASH [width] [scheme] [full]"""

import sys, time
from playwright.sync_api import sync_playwright

shots = [l.split() for l in sys.stdin if l.strip()]
with sync_playwright() as p:
    b = p.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
    for name, file, hash_, width, scheme, full in shots:
        c = b.new_context(color_scheme=scheme, viewport={"width": int(width), "height": 900})
        pg = c.new_page()
        pg.on("console", lambda m: print(name, m.type, m.text))
        pg.on("pageerror", lambda e: print(name, "ERR", e, e.stack[:600]))
        t = time.time()
        pg.goto(f"file://{file}#{hash_}")
        pg.wait_for_timeout(700)
        pg.screenshot(path=f"/tmp/pg/{name}.png", full_page=full == "1")
        c.close()
