import sys, time, json
from playwright.sync_api import sync_playwright

with sync_playwright() as p:
    b = p.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
    for f in sys.argv[1:]:
        for i in range(3):
            c = b.new_context(viewport={"width": 1440, "height": 900})
            pg = c.new_page()
            pg.goto(f"file:///tmp/pg/{f}/report.html", wait_until="commit")
            fp = pg.evaluate(
                """async () => { const ok=()=>performance.getEntriesByName('first-contentful-paint').length>0 && document.querySelectorAll('path.curve').length>5; while(!ok()) await new Promise(r=>setTimeout(r,5)); return [performance.getEntriesByName('first-contentful-paint')[0].startTime, performance.now()]; }"""
            )
            pg.wait_for_load_state("load")
            load = pg.evaluate("performance.getEntriesByType('navigation')[0].loadEventEnd")
            # drill-down
            d = pg.evaluate(
                """async () => { const t=performance.now(); location.hash='#step/%d'; await new Promise(r=>{const w=()=>document.querySelector('.group tbody tr')?r():requestAnimationFrame(w); w();}); await new Promise(r=>requestAnimationFrame(()=>setTimeout(r))); return performance.now()-t; }"""
                % (300 if f == "big" else 25)
            )
            g = pg.evaluate(
                """async () => { const t=performance.now(); location.hash='#step/%d/2/1'; await new Promise(r=>{const w=()=>document.querySelector('.turn')?r():requestAnimationFrame(w); w();}); await new Promise(r=>requestAnimationFrame(()=>setTimeout(r))); return performance.now()-t; }"""
                % (300 if f == "big" else 25)
            )
            print(f, "FCP/curves", [round(x) for x in fp], "load", round(load), "step", round(d), "dialogue", round(g))
            c.close()
