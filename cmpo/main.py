"""Trains an agent: ``python -m cmpo.main --config=configs/fds.py[:variant] --workdir=DIR``; run again, it resumes."""

import pathlib
import sys

from absl import flags
from ml_collections import ConfigDict

from cmpo.cli import command
from cmpo.distributed import processes
from cmpo.reports import run_page
from cmpo.run.interrupt import Interrupted, Interrupts
from cmpo.run.lock import hold_lock
from cmpo.run.recorder import Recorder
from cmpo.run.tracking import Tracking, import_wandb
from cmpo.run.train_state import TrainState
from cmpo.run.workdir import claim_workdir, read_progress
from cmpo.training import collecting, demonstrations, memory_plan, model_source, preparing, tasks
from cmpo.training.clients import make_clients
from cmpo.training.learner import Learner
from cmpo.training.player import Player
from cmpo.training.prefetch import Ahead
from cmpo.training.trainer import Trainer
from rollouts import domains

_DRY_RUN = flags.DEFINE_bool(
    "dry_run", False, "Only print the memory that the run would take on each device, and whether it fits."
)
_DEVICES = flags.DEFINE_string(
    "devices", "", "With --dry_run: COUNTxGIGABYTES; default: the accelerators that are here, else 8x80."
)


def train(config: ConfigDict, workdir: pathlib.Path) -> TrainState | None:
    """Runs both phases to their end, from the last checkpoint if there is one; see docs/runs.md.

    Returns the final state, or None if the run was asked to stop before its first step.
    """
    weights = model_source.find_source(config, workdir)
    preparing.check_settings(config, weights)
    if config.sft.path and not read_progress(workdir)[1]:
        demonstrations.read_conversations(domains.load(config).turn_format, config.sft.path)
    source = tasks.open_source(config)
    preparing.check_tasks(config, source, weights)
    clients = make_clients(config, workdir)
    sft_steps, last = config.train.sft_steps, config.train.sft_steps + config.train.rl_steps
    with hold_lock(workdir), Interrupts() as interrupts, Tracking() as tracking:
        processes.run_once(lambda: claim_workdir(workdir, config))
        processes.run_once(lambda: tracking.open(config.log.wandb, workdir, config.to_dict()))
        try:
            prepared = preparing.prepare_run(config, workdir, source, weights, clients, lambda: interrupts.received)
        except Interrupted as reason:
            print(" ".join([f"{workdir}: {reason}", *reason.__notes__]))
            return None
        with Recorder(config, workdir, tracking) as records, Ahead() as ahead:
            domain = domains.load(config)
            learner = Learner(config, prepared.model, prepared.weights, domain)
            player = Player(
                *(config, source, prepared.tokenizer, learner),
                *(clients, records.journal, interrupts, ahead),
            )
            trainer = Trainer(config, learner, player, *preparing.pack_lessons(config, domain, prepared))
            state = records.resume(learner.lay_out_state, learner.make_first_state)

            def save_state() -> None:
                with learner.turn_taking:
                    records.save(state)

            first = int(state.step)
            for number in range(first, last):
                if number == sft_steps:
                    state = learner.begin_rl(state)
                one_step = trainer.sft_step if number < sft_steps else trainer.rl_step
                try:
                    state, record, dialogues = one_step(state)
                except collecting.STOPS as reason:
                    if number != sft_steps:  # else the end of phase 1 is saved, or there was none
                        save_state()  # the state before the step; the journal has what was played
                    if isinstance(reason, Interrupted):
                        break
                    reason.add_note(f"({number} of {last} steps are saved; the same command goes on from there)")
                    raise
                records.write_step(number + 1, record, dialogues)
                stop = any(processes.run_everywhere(lambda: interrupts.received))
                lost = int(state.skipped) >= config.train.max_skipped
                if stop or lost or number + 1 in (sft_steps, last) or (number + 1) % config.train.checkpoint_every == 0:
                    save_state()
                if lost:
                    raise FloatingPointError(
                        f"the updates of {config.train.max_skipped} steps in a row, up to {number + 1}, were skipped: "
                        "the loss or its gradient was not finite. The last sound model is saved; a new run may want a "
                        "lower config.train.learning_rate"
                    )
                if stop:
                    break
            records.wait()
    if processes.is_first():
        if (workdir / "metrics.jsonl").exists():  # there are none if it was stopped in its first step
            run_page.write_report(workdir)
        done = f"all {last} steps are done" if first == last else f"{int(state.step)} of {last} steps done and saved"
        print(f"{workdir}: {done}")
    return state


def run() -> None:
    """Trains what the flags name, or prints what that would take."""
    config, workdir = command.CONFIG.value, command.WORKDIR.value
    if _DRY_RUN.value:
        if config.log.wandb:
            import_wandb()
        source = model_source.find_source(config, pathlib.Path(workdir) if workdir else None, download=False)
        print(
            memory_plan.plan_memory(
                config, model_source.find_architecture(config, source), memory_plan.read_devices(_DEVICES.value)
            )
        )
    elif workdir:
        state = train(config, pathlib.Path(workdir))
        if state is None or int(state.step) < config.train.sft_steps + config.train.rl_steps:
            sys.exit(command.STOPPED)
    else:
        raise ValueError("--workdir: expected a directory for the run")


if __name__ == "__main__":
    command.run(run, required=["config"])
