"""Models into runs and out of them, through the command line too."""

import dataclasses
import itertools
import json
import shutil
import subprocess
import sys

import chex
import huggingface_hub
import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from cmpo import evaluate, main
from cmpo.cli import agents
from cmpo.run.checkpoint import Checkpoints
from cmpo.training import build, model_source
from models import hf, lora, qwen2
from models import tokenizer as tokenizers
from models.config import Qwen2Config
from models.hf import transfer
from rollouts.domains.fds import generator
from tests.builders import commands, runs

TEXTS = [scenario.agent_prompt for scenario in itertools.islice(generator.deal_scenarios(0), 20)]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A model with a tokenizer, as on the hub; the embedding has rows to spare, as Qwen2.5's, one layer a window."""
    directory = tmp_path_factory.mktemp("hub") / "tiny"
    tokenizer = tokenizers.train_tokenizer(TEXTS, 600)
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_layers": 2, "num_heads": 2, "num_kv_heads": 1}
    config = Qwen2Config(vocab_size=608, max_positions=4096, sliding_window=256, window_from=1, **sizes)
    hf.save(directory, config, qwen2.init(config, jax.random.key(5)), max_shard_bytes=20_000)
    tokenizer.save(directory)
    return directory


def test_import_and_export_give_the_model_back(checkpoint, tmp_path):
    line = [sys.executable, "-m", "models.hf", "import", checkpoint, f"--workdir={tmp_path / 'run'}"]
    done = subprocess.run(line, cwd=runs.ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    export = ("export", f"--workdir={tmp_path / 'run'}", tmp_path / "out", "--dtype=float32")
    done = commands.run("models.hf", *export)
    assert done.returncode == 0, done.stderr
    (config, params), (config_out, params_out) = hf.load(checkpoint), hf.load(tmp_path / "out")
    assert config_out == config
    chex.assert_trees_all_equal(params_out, params)
    assert tokenizers.load(tmp_path / "out").encode(TEXTS[0]) == tokenizers.load(checkpoint).encode(TEXTS[0])
    im_end = tokenizers.load(checkpoint).im_end
    assert json.loads((tmp_path / "out" / "generation_config.json").read_text())["eos_token_id"] == im_end


@pytest.fixture
def hub(checkpoint, tmp_path_factory, monkeypatch):
    """Hugging Face's cache, with `checkpoint` in it as somebody/tiny, and no network."""
    cache = tmp_path_factory.mktemp("cache")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    snapshot = add_to_hub(cache, checkpoint, "1" * 40)
    end = tokenizers.load(checkpoint).endoftext
    (snapshot / "generation_config.json").write_text(json.dumps({"eos_token_id": end, "top_k": 20}))
    return cache


def add_to_hub(cache, directory, commit):
    """Makes `directory` the newest commit of somebody/tiny."""
    home = cache / "models--somebody--tiny"
    shutil.copytree(directory, home / "snapshots" / commit)
    (home / "refs").mkdir(exist_ok=True)
    (home / "refs" / "main").write_text(commit)
    return home / "snapshots" / commit


@pytest.mark.parametrize("way", ["imported", "lora"])
def test_a_run_starts_from_a_checkpoint_and_what_it_learns_is_exported(checkpoint, hub, tmp_path, way):
    config = runs.tiny(f"model={checkpoint}", **{"train.rl_steps": int(way == "lora")})
    if way == "imported":
        transfer.import_model(checkpoint, tmp_path)
        config.model.path = ""
    if way == "lora":
        config.update_from_flattened_dict({"model.lora_rank": 2, "sft.learning_rate": 1e-2})
        config.model.path = "somebody/tiny"
    state = main.train(config, tmp_path)
    model, before = hf.load(checkpoint)
    trained = jax.device_get(state.policy.params)
    if way == "lora":
        adapted = dataclasses.replace(model, lora_rank=2)
        assert jax.tree.structure(trained) == jax.tree.structure(lora.split(adapted, qwen2.shapes(adapted))[1])
        trained = lora.merge(adapted, lora.combine(before, trained))
    settings = (tmp_path / "config.json").read_text()
    for damaged in (settings[:100], "[]", '{"model": {}}'):
        (tmp_path / "config.json").write_text(damaged)
        with pytest.raises(ValueError, match=r"config\.json: expected a run's settings, with path, "):
            transfer.export_model(tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    (tmp_path / "config.json").write_text(settings)
    transfer.export_model(tmp_path, tmp_path / "out")
    _, after = hf.load(tmp_path / "out")
    chex.assert_trees_all_close(jax.device_get(after), trained, rtol=1e-6)
    change = jax.tree.map(lambda a, b: np.abs(a - b).max(), after, before)
    assert 0 < change["layers"]["mlp"]["up"]["kernel"] < 0.1
    tokenizer = tokenizers.load(checkpoint)
    ends = [tokenizer.im_end, tokenizer.endoftext] if way == "lora" else tokenizer.im_end
    generation = json.loads((tmp_path / "out" / "generation_config.json").read_text())
    sampled = {"do_sample": True, "temperature": config.eval.temperature, "top_k": 0, "top_p": 1.0}
    assert generation == sampled | {"eos_token_id": ends, "pad_token_id": tokenizer.endoftext}
    assert hf.read_commit(tmp_path / "model") == ("1" * 40 if way == "lora" else None)
    served_by, step = agents.load_policy(config, tmp_path)
    assert step == int(state.step) and len(evaluate.play_evaluation(config, served_by, seeds=1)) == 8


def run_of(source, directory, params, **changes):
    """A run in `directory` that began with the model in `source` and has trained `params`; returns its config."""
    config = runs.tiny(**changes)
    tokenizer = tokenizers.load(source)
    tokenizer.save(directory / "tokenizer")
    tokens = hf.token_ids(source, tokenizer)
    hf.write_config(directory / "model", hf.read_config(source), **hf.describe_origin(source), **tokens)
    (directory / "config.json").write_text(json.dumps(config.to_dict()))
    with ocp.CheckpointManager((directory / "checkpoints").absolute()) as manager:
        manager.save(1, args=ocp.args.PyTreeSave({"policy": {"params": params}}))
    return config


def test_adapters_are_merged_into_the_commit_that_they_were_trained_on(checkpoint, hub, tmp_path):
    model, before = hf.load(checkpoint)
    adapted = dataclasses.replace(model, lora_rank=2)
    adapters = lora.split(adapted, qwen2.init(adapted, jax.random.key(1)))[1]
    adapters = jax.tree.map(lambda leaf: leaf + 0.1, adapters)
    expected = lora.merge(adapted, lora.combine(before, adapters))
    changes = {"model.path": "somebody/tiny", "model.lora_rank": 2}
    config = run_of(hf.find_model("somebody/tiny", download=False), tmp_path / "run", adapters, **changes)
    hf.save(tmp_path / "newer", model, jax.tree.map(lambda leaf: leaf + 1, before))
    add_to_hub(hub, tmp_path / "newer", "2" * 40)
    assert model_source.find_source(config, tmp_path / "run").name == "1" * 40
    assert model_source.find_source(config, None).name == "2" * 40
    transfer.export_model(tmp_path / "run", tmp_path / "out")
    chex.assert_trees_all_close(hf.load(tmp_path / "out")[1], expected, rtol=1e-6)

    shutil.rmtree(hub / "models--somebody--tiny" / "snapshots" / ("1" * 40))
    with pytest.raises(
        FileNotFoundError, match=r"adapters of somebody/tiny, .*hf download somebody/tiny --revision 11"
    ):
        transfer.export_model(tmp_path / "run", tmp_path / "again")
    assert not list(tmp_path.glob("again*"))


def test_adapters_of_a_new_model_are_merged_into_what_its_seed_makes(checkpoint, tmp_path):
    model = hf.read_config(checkpoint)
    adapted = dataclasses.replace(model, lora_rank=2)
    adapters = jax.tree.map(lambda leaf: leaf + 0.1, lora.split(adapted, qwen2.init(adapted, jax.random.key(1)))[1])
    config = run_of(checkpoint, tmp_path / "run", adapters, **{"model.lora_rank": 2, "train.seed": 7})
    frozen = model_source.make_frozen_params(adapted, build.make_mesh(config, model), None, 7)
    expected = lora.merge(adapted, lora.combine(jax.device_get(frozen), adapters))
    transfer.export_model(tmp_path / "run", tmp_path / "out")
    chex.assert_trees_all_close(hf.load(tmp_path / "out")[1], expected, rtol=1e-6)


def test_nothing_is_downloaded_unless_it_may_be(hub, monkeypatch):
    asked = []
    download = huggingface_hub.snapshot_download
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *a, **k: asked.append(k) or download(*a, **k))
    assert hf.find_model("somebody/tiny", download=False).name == "1" * 40
    assert hf.find_model("somebody/else", download=False) is None
    assert hf.find_model("somebody/tiny", download=True, commit="1" * 40).name == "1" * 40
    assert all(options["local_files_only"] for options in asked)
    (hub / "models--somebody--tiny" / "snapshots" / ("1" * 40) / "config.json").unlink()
    assert hf.find_model("somebody/tiny", download=False) is None  # another program fetched a part of it


def test_a_template_in_a_file_and_other_ends_of_a_turn_are_exported(checkpoint, tmp_path):
    source = tmp_path / "source"
    shutil.copytree(checkpoint, source)
    settings = json.loads((source / "tokenizer_config.json").read_text())
    template = settings.pop("chat_template") + "{# mine #}"
    (source / "tokenizer_config.json").write_text(json.dumps(settings))
    (source / "chat_template.jinja").write_text(template)
    (source / "additional_chat_templates").mkdir()
    (source / "additional_chat_templates" / "rag.jinja").write_text("rag")
    tokenizer = tokenizers.load(source)
    ends = [tokenizer.im_end, tokenizer.endoftext]
    generation = {"eos_token_id": ends[::-1], "temperature": 0.7, "repetition_penalty": 1.1}
    (source / "generation_config.json").write_text(json.dumps(generation))
    transfer.import_model(source, tmp_path / "run")
    transfer.export_model(tmp_path / "run", tmp_path / "out")
    written = json.loads((tmp_path / "out" / "tokenizer_config.json").read_text())["chat_template"]
    assert written == [{"name": "default", "template": template}, {"name": "rag", "template": "rag"}]
    written = json.loads((tmp_path / "out" / "generation_config.json").read_text())
    assert written == generation | {"eos_token_id": ends, "pad_token_id": tokenizer.endoftext}
    assert json.loads((tmp_path / "out" / "config.json").read_text())["eos_token_id"] == ends

    changes = {"model.path": str(source), "eval.temperature": 0.25, "engine.top_k": 30}
    run_of(source, tmp_path / "trained", hf.load(source)[1], **changes)
    transfer.export_model(tmp_path / "trained", tmp_path / "after")
    written = json.loads((tmp_path / "after" / "generation_config.json").read_text())
    sampled = {"do_sample": True, "temperature": 0.25, "top_k": 30, "top_p": 1.0}
    assert written == sampled | {"eos_token_id": ends, "pad_token_id": tokenizer.endoftext}
    exported = [json.loads((tmp_path / out / "tokenizer_config.json").read_text()) for out in ("out", "after")]
    assert exported[0] == exported[1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"config.json": {"vocab_size": 590}}, "vocabulary"),
        (
            {"generation_config.json": {"eos_token_id": "2"}},
            r"generation_config.json: eos_token_id: expected an id, or",
        ),
        ({"generation_config.json": {"eos_token_id": [True]}}, r"generation_config.json: eos_token_id: expected an id"),
        ({"tokenizer_config.json": {"split_special_tokens": True}}, "split_special_tokens: only False"),
    ],
)
def test_what_cannot_be_honoured_is_not_imported(change, message, checkpoint, tmp_path):
    source = tmp_path / "source"
    shutil.copytree(checkpoint, source)
    for name, values in change.items():
        content = json.loads((source / name).read_text())
        (source / name).write_text(json.dumps(content | values))
    if message == "vocabulary":
        config, params = hf.load(checkpoint)
        small = dataclasses.replace(config, vocab_size=590)
        params = params | {"embed": {"embedding": params["embed"]["embedding"][:590]}}
        for file in (source / name for name in ("config.json", "generation_config.json", hf.INDEX)):
            file.unlink()
        for file in source.glob("*.safetensors"):
            file.unlink()
        hf.save(tmp_path / "small", small, params)
        shutil.copytree(tmp_path / "small", source, dirs_exist_ok=True)
        message = "the tokenizer has 600 ids, the model 590"
    with pytest.raises(ValueError, match=message):
        transfer.import_model(source, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_an_export_is_whole_or_not_there(checkpoint, tmp_path, monkeypatch):
    transfer.import_model(checkpoint, tmp_path / "run")
    with runs.full_disk(size=16_000), pytest.raises(Exception, match=r"os error 27"):
        transfer.export_model(tmp_path / "run", tmp_path / "out")
    with monkeypatch.context() as patched, pytest.raises(OSError, match="full"):  # once the weights are written

        def save(*_):
            raise OSError("full")

        patched.setattr(tokenizers.Tokenizer, "save", save)
        transfer.export_model(tmp_path / "run", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    transfer.export_model(tmp_path / "run", tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "run"]


def test_the_first_state_is_the_checkpoint(checkpoint, tmp_path):
    config = runs.tiny(f"model={checkpoint}", **{"train.sft_steps": 1, "train.rl_steps": 0, "sft.learning_rate": 0.0})
    main.train(config, tmp_path)
    with Checkpoints(tmp_path, keep=1) as checkpoints:
        saved = checkpoints._manager.restore(1)["policy"]["params"]
    chex.assert_trees_all_equal(saved, jax.device_get(hf.load(checkpoint)[1]))


def test_sizes_that_differ_are_named(checkpoint, tmp_path):
    config = runs.tiny(**{"model.path": str(checkpoint)})
    with pytest.raises(ValueError, match=r"config.model.vocab_size: expected 608, as in .*, got 600; the variant"):
        main.train(config, tmp_path)


def test_a_context_beyond_the_model_is_named(checkpoint, tmp_path):
    config = runs.tiny(f"model={checkpoint}", **{"model.context_length": 5000})
    with pytest.raises(ValueError, match=r"config.model.context_length: expected at most the model's 4096, got 5000"):
        main.train(config, tmp_path)


def test_no_such_model_is_named(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match=r"config.model.path: expected a directory or a model on the hub"):
        main.train(runs.tiny("model=./nowhere"), tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(FileNotFoundError, match=r"config.model.path: 'nobody/nothing' is neither a directory nor"):
        main.train(runs.tiny("model=nobody/nothing"), tmp_path)


def test_what_cannot_be_imported_leaves_nothing(checkpoint, tmp_path):
    shutil.copytree(checkpoint, tmp_path / "damaged")
    first = sorted((tmp_path / "damaged").glob("*.safetensors"))[0]
    first.write_bytes(first.read_bytes()[:100])
    done = commands.run("models.hf", "import", tmp_path / "damaged", f"--workdir={tmp_path / 'run'}")
    assert done.returncode == 1 and done.stderr.startswith("error: ") and first.name in done.stderr
    assert done.stderr.count("\n") == 1 and not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("import", "here"), "flag --workdir=None: "),
        (("--workdir=run",), "expected import DIR, or export OUT, got nothing"),
        (("--workdir=run", "import", "here", "there"), "expected import DIR, or export OUT, got import here there"),
        (("--workdir=run", "move", "here"), "expected import DIR, or export OUT, got move here"),
        (("--workdir=run", "import", "here", "--dtype=float32"), "--dtype: an import keeps the numbers as they are"),
        (("--workdir=run", "export", "there", "--dtype=int8"), "flag --dtype=int8: value should be one of"),
        (("--workdir=run", "export", "there", "--type=int8"), "Unknown command line flag 'type'"),
    ],
)
def test_a_line_that_cannot_be_understood_is_refused_in_one_line(arguments, message):
    done = commands.run("models.hf", *arguments)
    assert done.returncode == 1 and done.stderr.startswith(f"error: {message}") and done.stderr.count("\n") == 1


def test_a_tilde_is_the_home_directory(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    done = commands.run("models.hf", "export", "--workdir=~/run", "~/out")
    assert done.returncode == 1 and done.stderr.startswith(f"error: {tmp_path}/run/")


def test_a_second_import_and_an_export_of_nothing_are_refused(checkpoint, tmp_path):
    transfer.import_model(checkpoint, tmp_path / "run")
    with pytest.raises(FileExistsError, match="there is a model already"):
        transfer.import_model(checkpoint, tmp_path / "run")
    with pytest.raises(FileNotFoundError, match=r"config\.json"):
        transfer.export_model(tmp_path / "nothing", tmp_path / "out")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes").write_text("mine")
    with pytest.raises(FileExistsError, match="full"):
        transfer.export_model(tmp_path / "run", tmp_path / "full")
