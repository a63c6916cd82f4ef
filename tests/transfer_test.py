"""Models into runs and out of them, through the command line too."""

import dataclasses
import itertools
import json
import shutil
import subprocess
import sys

import chex
import jax
import numpy as np
import pytest

from cmpo import agents, evaluate, main
from cmpo.checkpoint import Checkpoints
from models import hf, lora, qwen2
from models import tokenizer as tokenizers
from models.config import Qwen2Config
from models.hf import transfer
from rollouts import fds
from tests import commands, runs

TEXTS = [scenario.agent_prompt for scenario in itertools.islice(fds.scenarios(0), 20)]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A model with a tokenizer, as on the hub; the embedding has rows to spare, as Qwen2.5's, one layer a window."""
    directory = tmp_path_factory.mktemp("hub") / "tiny"
    tokenizer = tokenizers.train(TEXTS, 600)
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


@pytest.mark.parametrize("way", ["imported", "lora"])
def test_a_run_starts_from_a_checkpoint_and_what_it_learns_is_exported(checkpoint, tmp_path, way):
    config = runs.tiny(f"model={checkpoint}", **{"train.rl_steps": int(way == "lora")})
    if way == "imported":
        transfer.import_model(checkpoint, tmp_path)
        config.model.path = ""
    if way == "lora":
        config.update_from_flattened_dict({"model.lora_rank": 2, "sft.learning_rate": 1e-2})
    state = main.train(config, tmp_path)
    model, before = hf.load(checkpoint)
    trained = jax.device_get(state.params)
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
    served_by, step = agents.load_policy(config, tmp_path)
    assert step == int(state.step) and len(evaluate.evaluate(config, served_by, seeds=1)) == 8


def test_the_first_state_is_the_checkpoint(checkpoint, tmp_path):
    config = runs.tiny(f"model={checkpoint}", **{"train.sft_steps": 1, "train.rl_steps": 0, "sft.learning_rate": 0.0})
    main.train(config, tmp_path)
    with Checkpoints(tmp_path, keep=1) as checkpoints:
        saved = checkpoints._manager.restore(1)["params"]
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
    with pytest.raises(FileNotFoundError, match=r"config.model.path: 'nobody/nothing' is no directory, nor to be had"):
        main.train(runs.tiny("model=nobody/nothing"), tmp_path)


def test_what_cannot_be_imported_leaves_nothing(checkpoint, tmp_path):
    shutil.copytree(checkpoint, tmp_path / "damaged")
    first = sorted((tmp_path / "damaged").glob("*.safetensors"))[0]
    first.write_bytes(first.read_bytes()[:100])
    done = commands.run("models.hf", "import", tmp_path / "damaged", f"--workdir={tmp_path / 'run'}")
    assert done.returncode == 1 and done.stderr.startswith("error: ") and first.name in done.stderr
    assert done.stderr.count("\n") == 1 and not (tmp_path / "run").exists()


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
