"""What a run's page carries, taken out of its HTML as a browser takes it."""

import base64
import gzip
import html.parser
import json


class _Scripts(html.parser.HTMLParser):
    """Collects the content of script elements by id, all tags, and the values of links."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.links, self.scripts, self._open, self.policy = set(), [], {}, None, ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.tags.add(tag)
        self.links += [value for name, value in attrs.items() if name in ("src", "href", "xlink:href")]
        if attrs.get("http-equiv") == "Content-Security-Policy":
            self.policy = attrs["content"]
        self._open = attrs.get("id", "") if tag in ("script", "style") else None
        if self._open is not None:
            self.scripts[self._open or tag] = ""

    def handle_endtag(self, tag):
        self._open = None

    def handle_data(self, data):
        if self._open is not None:
            last = list(self.scripts)[-1]
            self.scripts[last] += data


class RunPage:
    """A page: `runs` as its scripts read them, and `groups(key)` of the first."""

    def __init__(self, path):
        self.html = path.read_text()
        self.parsed = _Scripts(self.html)
        self.runs = json.loads(self.parsed.scripts["data"])["runs"]
        self.run = self.runs[0]

    def groups(self, key, run=0):
        return json.loads(gzip.decompress(base64.b64decode(self.parsed.scripts[f"chunk-{run}-{key}"])))

    def panels(self, run=0):
        return {panel["title"]: panel for section in self.runs[run]["sections"] for panel in section["panels"]}

    def column(self, name, run=0):
        source, _, inner = name.partition(".")
        found = self.runs[run]["sources"][source]
        return dict(zip(found["step"], found["columns"][inner], strict=True))
