"""The start that the repository carries reads its customers, quotes what is so, and keeps to the turn format."""

import numpy as np

from cmpo.distributed import sharding
from cmpo.training import build, collecting, model_source, tasks
from configs import fds
from models import tokenizer as tokenizers
from tests.builders.replies import read_turns

LIES = {"promise", "unbacked", "explain_false", "wrong_fact", "rude", "negated", "not_understood"}


def test_held_out_customers_are_served_by_it():
    config = fds.get_config()
    assert config.model.path == str(fds.START)
    config.engine.slots = 24
    model = model_source.find_architecture(config, fds.START)
    mesh, tokenizer = build.make_mesh(config, model), tokenizers.load(fds.START)
    engine = build.make_engine(config, model, mesh, tokenizer, temperature=0.3)
    params = model_source.make_trained_params(model, mesh, fds.START, seed=0)
    engine.load(sharding.make_publish(model, mesh)({}, params))
    dialogues = collecting.collect_dialogues(
        config,
        collecting.serve_policy(engine, tokenizer),
        tasks.open_source(config).held_out(24, 7),
        repeats=1,
        seed=0,
        judged=False,
    )
    ended = [one for one in dialogues if one.end == "rated"]
    assert len(ended) > 0.9 * len(dialogues)
    events = [[read for _, read in read_turns(one)] for one in ended]
    assert np.mean([bool(read & LIES) for turns in events for read in turns]) < 0.03
    assert np.mean([any("listen" in read for read in turns) for turns in events]) > 0.85
    assert np.mean([any("explain_true" in read for read in turns) for turns in events]) > 0.7
    assert np.mean([max(one.outcome, 0) for one in dialogues]) > 1.8
