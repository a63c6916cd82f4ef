"""Configs from whoever types them: variants, settings on the command line, and the config.json of a run that goes on.

Whatever comes, it is a whole config with every value in its range, or one line that names the field and what came.
"""

import dataclasses
import json
import math
import pathlib
import re

import httpx
import numpy as np
import pytest
from absl import flags
from hypothesis import assume, example, given
from hypothesis import strategies as st
from ml_collections import config_flags

from cmpo.cli import command
from cmpo.reports import run_page
from cmpo.run import files, schema
from cmpo.run.workdir import ConfigConflict, check_same_config, may_change
from cmpo.training import preparing
from cmpo.training.clients import read_endpoint
from configs import fds, tau2
from rollouts.endpoints import settings
from rollouts.sections import flatten_config
from tests.builders import almost
from tests.builders.runs import ROOT

DEFAULT = flatten_config(fds.get_config().to_dict())
FILE = "--config=configs/fds.py"

VARIANTS = ("smoke", "algo=cmpo", "smoke,algo=grpo", "difficulty=normal,algo=capo", "model=qwen2.5-7b,smoke", "")
PIECES = (",", "=", ":", "smoke", "algo=", "model=", "difficulty=", "hard", "domain=", "user=", "mock", "\n", " ", "7b")
METHODS = ("cmpo", "grpo", "capo", "ppo", "reinforce", "gdpo", "sft")
ALLOWED = {  # as the files' documentation has them
    fds: {"algo": METHODS, "difficulty": ("hard", "normal")},
    tau2: {"algo": METHODS, "domain": ("telecom", "retail", "airline", "mock"), "user": ("rules", "llm", "solo")},
}


def list_types(config):
    """The names of a config's fields, with their types."""
    return {name: type(value) for name, value in flatten_config(config.to_dict()).items()}


def fits(file, name):
    """Whether a variant is one of those in the documentation."""
    kind, _, value = name.partition("=")
    return name in ("", "smoke") or value in ALLOWED[file].get(kind, ()) or (kind == "model" and value != "")


@pytest.mark.parametrize("file", ALLOWED)
@given(st.text() | almost.texts((*VARIANTS, "domain=retail,user=llm,smoke"), PIECES))
def test_whatever_follows_the_colon_is_a_whole_config_or_an_unknown_variant(file, text):
    unknown = [name for name in text.split(",") if not fits(file, name)]
    try:
        config = file.get_config(text)
    except ValueError as error:
        chosen = {name.partition("=")[0] for name in filter(None, text.split(","))}
        twice = len(chosen) < len(set(filter(None, text.split(","))))
        assert twice or f"unknown variant {unknown[0]!r}; expected one of" in str(error)
    else:
        assert not unknown and list_types(config) == list_types(file.get_config())
        schema.check_config(config)


@pytest.mark.parametrize("file", ALLOWED)
def test_variants_are_applied_whatever_their_order(file):
    one, other = file.get_config("smoke,algo=ppo,model=qwen2.5-7b"), file.get_config("model=qwen2.5-7b,algo=ppo,smoke")
    assert one == other
    assert (one.train.sft_steps, one.algo.name, one.train.epochs) == (8, "ppo", 2)
    np.testing.assert_allclose(one.train.learning_rate, 1e-6 / 3)
    assert (one.model.path, one.model.hidden_size) == ("Qwen/Qwen2.5-7B-Instruct", 3584)
    with pytest.raises(ValueError, match="expected one variant algo=, got 'ppo' and 'grpo'"):
        file.get_config("algo=ppo,algo=grpo")


def parse(*arguments):
    """The config that a command gets from its arguments."""
    arguments = ["program", *arguments]
    values = flags.FlagValues()
    given = config_flags.DEFINE_config_file("config", None, "", values, lock_config=True, sys_argv=arguments)
    assert command._parse_flags(arguments, values) == ["program"]
    return given.value


def test_a_tilde_is_the_home_directory_wherever_a_path_begins(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "mine.py").write_text(
        "from configs import fds\ndef get_config(arg):\n  c = fds.get_config(arg)\n  c.data.dir = '~/d'\n  return c\n"
    )
    config = parse("--config=~/mine.py:model=~/m", "--config.sft.path=~/a b.jsonl", "--config.endpoints.record", "~/r")
    assert (config.model.path, config.data.dir) == (f"{tmp_path}/m", f"{tmp_path}/d")
    assert (config.sft.path, config.endpoints.record) == (f"{tmp_path}/a b.jsonl", f"{tmp_path}/r")


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        ("--out=~/e.json", "--out=HOME/e.json"),
        ("--workdir=~", "--workdir=HOME"),
        ("~/e.json", "HOME/e.json"),
        ("CMPO=~/runs/lr=3e-4/e.json", "CMPO=HOME/runs/lr=3e-4/e.json"),
        ("--out=a~/b", "--out=a~/b"),
        ("--out=a/~/b", "--out=a/~/b"),
        ("--out=~nobody-of-that-name/b", "--out=~nobody-of-that-name/b"),
        ("--config.user.model=~x~", "--config.user.model=~x~"),
    ],
)
def test_no_other_tilde_is(argument, expected, monkeypatch):
    monkeypatch.setenv("HOME", "HOME")
    assert files.expand_home(argument) == expected


def begin(config):
    """What looks at a config before a run begins, but for files and devices."""
    preparing.check_settings(config, None)
    for name in ("user", "judge"):
        settings.check_endpoint(name, read_endpoint(config[name]))


VALUES = (
    *(
        "0",
        "1",
        "-1",
        "2",
        "0.5",
        "1.5",
        "-0.5",
        "1e-3",
        "1e999",
        "nan",
        "-inf",
        "",
        " ",
        "None",
        "True",
        "false",
        "x",
        "0x1",
    ),
    *(
        "9" * 30,
        "9" * 5000,
        "1_0",
        "٣",
        "[1]",
        "(1,)",
        "{}",
        "{'seed': 1}",
        "{1: 2}",
        "{[]: 1}",
        "(" * 300,
        "--",
        "a\nb",
    ),
    *("\0", "\udc80", "http://a:9/v1", "http://", "embedded", "group", "trajectory", "bfloat16", "incremental"),
)
SETTINGS = [f"--config.{name}={value}" for name in sorted(DEFAULT) for value in VALUES]
MARKS = (
    "--",
    "config.",
    "=",
    ".",
    "..",
    "[0]",
    "train",
    ".x",
    "no",
    " ",
    "-",
    ":",
    "'",
    "seed",
    "__class__",
    "to_dict",
    "(1)",
)


@given(st.lists(st.sampled_from(SETTINGS) | almost.texts(SETTINGS, MARKS), min_size=1, max_size=2))
@example(["--config.train={'seed': 1}"])
@example(["--config.train={}"])
@example(["--config.train.=1"])
@example(["--config.model.path[0]=1"])
@example(["--config.train.seed=1\n2"])
@example(["train.seed=1"])
def test_whatever_is_typed_is_a_whole_config_or_one_line(arguments):
    assume(not any(re.match("--?(flagfile|config)(=|$)", argument) for argument in arguments))  # they name files
    try:
        config = parse(f"{FILE}:new", *arguments)
    except SystemExit as error:
        assert re.fullmatch(r"error: .+", error.code) and "Traceback" not in error.code
        return
    assert list_types(config) == list_types(fds.get_config("new"))
    try:
        begin(config)
    except ValueError as error:
        typed = {argument.removeprefix("--config.").partition("=")[0].rpartition(".")[2] for argument in arguments}
        assert any(name in str(error) for name in typed)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (
            (FILE, "--config.train={'seed': 1}"),
            "--config.train: expected one of its fields, as in --config.train.FIELD=",
        ),
        ((FILE, "--config.judge.weights={'stage': 1.0}"), "--config.judge.weights: expected one of its fields"),
        ((FILE, "--config.train.=1"), "--config: Could not parse 'train.'"),
        ((FILE, "--config.model.path[0]=1"), "--config: no such field: 0 is not a valid index for <class 'str'>"),
        ((FILE, "--" + "x" * 5000), "unknown flag, with a name of"),
        ((FILE, "--config.model.path.x=1"), "--config: no such field: string indices must be integers"),
        ((FILE, "--config.train.sed=1"), "--config: no such field: 'sed'"),
        ((FILE, "--config.train.seed=1\n2"), "flag --config.train.seed=1 2: invalid literal"),
        (
            (FILE, "config.train.seed=1"),
            "unexpected argument 'config.train.seed=1'; a setting is written --config.FIELD=",
        ),
        (("--config=configs/none.py", "--config.train.seed=1"), "--config: Configuration is not available"),
        (("--config=README.md",), "--config: "),
        ((FILE + ":smok", "--config.train.seed=1"), "ValueError: unknown variant 'smok'"),
    ],
)
def test_what_cannot_be_a_config_is_one_line(arguments, message):
    with pytest.raises(SystemExit, match=re.escape(f"error: {message}")) as refusal:
        parse(*arguments)
    assert "\n" not in refusal.value.code


@pytest.mark.parametrize(
    "name, value, message",
    [
        ("train.checkpoint_every", 0, "1 or more, got 0"),
        ("train.scenarios_per_step", -1, "1 or more, got -1"),
        ("train.warmup_fraction", 1.5, "0 to 1, got 1.5"),
        ("train.seed", 2**31, "0 to 2147483647, got 2147483648"),
        ("train.learning_rate", math.nan, "a finite number, got nan"),
        ("user.temperature", math.inf, "a finite number, got inf"),
        ("train.momentum_dtype", "int8", "one of ('float32', 'bfloat16', 'float16'), got 'int8'"),
        (
            "algo.normalize",
            "",
            "one of ('group', 'trajectory', 'turn', 'decoupled', 'scaled', 'batch', 'center', 'none'), got ''",
        ),
        ("judge.weights.stage", -1.0, "0 or more, got -1.0"),
        ("train.rl_steps", 2**31, "less than 2^31, got 2147483648"),
        ("train.rl_steps", 10**400, f"less than 2^31, got 1{'0' * 29}"),
        ("user.budget_tokens", 2**63, "less than 2^63, got 9223372036854775808"),
    ],
)
def test_a_value_out_of_its_range_is_refused_by_its_name(name, value, message):
    config = fds.get_config()
    config.update_from_flattened_dict({name: value})
    with pytest.raises(ValueError, match=re.escape(f"config.{name}: expected {message}")):
        schema.check_config(config)


NUMBERS = [name for name, value in DEFAULT.items() if isinstance(value, int | float) and not isinstance(value, bool)]
FREE = ("algo.outcome_weight", "algo.process_weight")  # of either sign, and of any size


@pytest.mark.parametrize("name", [name for name in NUMBERS if name not in FREE])
def test_every_number_has_a_range(name):
    config, wrong = fds.get_config(), 1e6 if name == "episode.format_outcome" else -1e6
    config.update_from_flattened_dict({name: type(DEFAULT[name])(wrong)})
    with pytest.raises(ValueError, match=re.escape(f"config.{name}: expected ")):
        schema.check_config(config)
        for section in ("user", "judge", "agent"):
            settings.check_endpoint(section, dataclasses.replace(read_endpoint(config[section]), url="embedded"))


def test_weights_that_are_all_0_are_refused():
    config = fds.get_config()
    config.judge.weights = dict.fromkeys(config.judge.weights, 0.0)
    with pytest.raises(ValueError, match="config.judge.weights: expected one above 0"):
        schema.check_config(config)


URLS = ("http://a:8000/v1", "https://b.c/v1,http://d/v1", "http://[::1]:9/v1", "embedded")


@given(st.text() | almost.texts(URLS, (*":/@?#[], \n\t%é", "ftp", "0")))
@example("http://a b/v1")
@example("http://a:99999/v1")
@example("http://user:secret@[/v1")
@example("http://a\udc80/v1")
@example("http://a\x7f/v1")
@example("http://\u00ad/v1")
def test_whatever_url_is_given_can_be_asked_or_is_refused(url):
    found = settings.Endpoint(url, "m")
    try:
        settings.check_endpoint("user", found)
    except ValueError as error:
        assert str(error).startswith(
            "config.user.url: expected 'embedded' or http(s)://…/v1, several separated by commas"
        )
        assert "secret" not in str(error)
    else:
        for one in settings.list_urls(found):
            assert httpx.Request("POST", httpx.URL(one).join("chat/completions")).url.host


def test_only_a_command_that_takes_arguments_gets_them():
    line, values = ["program", "one.json", "--out=p.svg", "name=~/two.json"], flags.FlagValues()
    config_flags.DEFINE_config_file("config", None, flag_values=values)
    flags.DEFINE_string("out", None, "", flag_values=values)
    home = pathlib.Path.home()
    assert command._parse_flags(line, values, takes_arguments=True) == ["program", "one.json", f"name={home}/two.json"]
    assert values["out"].value == "p.svg"
    with pytest.raises(SystemExit, match="error: unexpected argument 'one.json'"):
        command._parse_flags(line, values)


SAVED = json.dumps(fds.get_config().to_dict(), indent=2)
JSON = (
    "{",
    "}",
    "[",
    "]",
    '"',
    ":",
    ",",
    "null",
    "0",
    "1",
    "NaN",
    "true",
    '"seed": 7,',
    '"x": 1, ',
    "9" * 5000,
    "[" * 5000,
    "\\",
)


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    return tmp_path_factory.mktemp("run")


@given(text=st.text() | almost.texts([SAVED], JSON) | almost.trees(fds.get_config().to_dict()).map(json.dumps))
@example(text="[" * 100_000)
@example(text='{"a": ' * 900 + "1" + "}" * 900)
@example(text="[]")
@example(text=SAVED.replace("768", "9" * 5000))
@example(text="\ud800")
def test_whatever_config_json_holds_a_run_goes_on_with_its_own_config_or_not_at_all(workdir, text):
    path = workdir / "config.json"
    path.write_bytes(text.encode(errors="surrogatepass"))
    try:
        check_same_config(workdir, fds.get_config())
    except ConfigConflict as error:
        assert re.search(r"holds a run with another config \(.* is .* there, .* here", str(error), re.DOTALL)
    except ValueError as error:
        assert str(error).startswith(f"{path}: expected a JSON object, got ")
    else:
        found = flatten_config(json.loads(text))
        # A field that is not there is newer than the run, and has its default.
        assert all(found.get(name, value) == value for name, value in DEFAULT.items() if not may_change(name))


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", '"x"', "\ud800", '{"a": 1', "[" * 100_000, '{"a": ' + "9" * 5000 + "}"]
)
def test_a_damaged_config_json_is_named(tmp_path, text):
    path = tmp_path / "config.json"
    path.write_bytes(text.encode(errors="surrogatepass"))
    (tmp_path / "metrics.jsonl").write_text("")
    for read in (lambda: check_same_config(tmp_path, fds.get_config()), lambda: run_page.write_report(tmp_path)):
        with pytest.raises(ValueError, match=re.escape(f"{path}: expected a JSON object, got ")):
            read()


def test_budgets_of_tau2_come_with_the_gains_of_their_units():
    config = tau2.get_config("budget=transfer:0.1+message:9,user=llm,domain=retail")
    assert config.pid.target.to_dict() == {"transfer": 0.1, "message": 9}
    assert config.pid.kp.to_dict() == {"transfer": 0.5, "message": 0.05}
    assert config.pid.ki.to_dict() == {"transfer": 0.15, "message": 0.01}
    assert tau2.get_config().pid.target.to_dict() == {"message": 8}
    schema.check_config(config)
    twice = "budget=message:8+message:9"
    for wrong in ("budget=voucher:0.3", "budget=transfer", "budget=transfer:", "budget=:1", "budget=message:-1", twice):
        with pytest.raises(ValueError, match="unknown variant 'budget="):
            tau2.get_config(wrong)


def test_where_nobody_writes_demonstrations_they_are_asked_for_before_anything_begins():
    for variant in ("domain=retail", "domain=airline,user=solo", "user=solo"):
        config = tau2.get_config(variant)
        with pytest.raises(ValueError, match="config.sft.path: expected demonstrations"):
            preparing.check_settings(config, None)
        config.sft.path = "demonstrations.jsonl"
        preparing.check_settings(config, None)


def test_only_the_telephone_company_has_a_user_by_rules():
    users = {domain: tau2.get_config(f"domain={domain}").data.user for domain in ALLOWED[tau2]["domain"]}
    assert users == {"telecom": "rules", "retail": "llm", "airline": "llm", "mock": "llm"}
    assert tau2.get_config("user=solo,domain=mock").data.user == "solo"


def test_the_start_is_found_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert parse("--config=configs/fds.py").model.path == fds.get_config().model.path == str(ROOT / "starts" / "fds")
