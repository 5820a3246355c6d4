"""One training: its runner, the work folder it writes to, and what is printed at its end."""

from __future__ import annotations

import shlex
from pathlib import Path

from mmengine.config import Config
from mmengine.hooks import CheckpointHook
from mmengine.runner import IterBasedTrainLoop, Runner

from fgplugins.zoo_mmpretrain.hooks import LeaveOutHook
from fgplugins.zoo_mmpretrain.running import work_folder
from fgplugins.zoo_mmpretrain.running.checkpoints import harmless_checkpoints
from fgplugins.zoo_mmpretrain.running.choosing import shown_score, validates_on_test
from fgplugins.zoo_mmpretrain.running.errors import logged_errors, user_errors
from fgplugins.zoo_mmpretrain.running.initial_weights import drop_pretrained
from fgplugins.zoo_mmpretrain.running.launching import build_runner, is_main_process
from fgplugins.zoo_mmpretrain.running.progress import showing
from fgplugins.zoo_mmpretrain.running.resuming import is_resumed

__all__ = ['train']


def train(cfg: Config, finished: bool, display: str) -> None:
    """Train, or test once more what is trained already.

    Args:
        cfg: the config.
        finished: the checkpoint to go on from is of the last epoch.
        display: 'auto' | 'quiet' | 'verbose': see `progress.showing`.
    """
    main_process, resumed = is_main_process(), is_resumed(cfg)
    saved = work_folder.saved_configs(cfg.work_dir)
    with harmless_checkpoints():
        runner = _build_runner(cfg, display)
        if main_process and not resumed:
            moved_to = work_folder.move_earlier_run(cfg.work_dir, saved, runner.timestamp)
            if moved_to:
                print(f'note: the files of an earlier run are set aside in {moved_to}')
        if cfg.get('pretrained_leaves_out') and not resumed:
            runner.register_hook(LeaveOutHook(cfg.pretrained_leaves_out))
        with logged_errors(runner):
            try:
                with showing(runner, display):
                    if not finished:
                        runner.train()
                    elif runner.val_loop is not None:
                        runner.val()
                    else:
                        runner.load_or_resume()
            except KeyboardInterrupt:
                print(
                    f'\ninterrupted in epoch {runner.epoch + 1}; finished epochs are in '
                    f'{runner.work_dir}; go on with --resume and the same arguments'
                )
                raise
    if main_process:
        _print_summary(runner, hint=display != 'quiet')


def _build_runner(cfg: Config, display: str) -> Runner:
    """The runner, with its loops and optimizer built, so that mistakes in them are the user's.

    The config that it saves does not say where the first weights came from: checkpoints hold them.
    """
    runner = build_runner(cfg, display)
    with user_errors('train_cfg'):
        _ = runner.train_loop
    with user_errors('val_evaluator'):
        _ = runner.val_loop
    with user_errors('optim_wrapper'):
        runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
    drop_pretrained(runner.cfg.model)
    if is_main_process():
        runner.dump_config()
    return runner


def _print_summary(runner: Runner, hint: bool) -> None:
    """Print the last results of validation, the best one, and where the files are.

    Args:
        runner: after the training.
        hint: whether to end with the command that tests what was trained.
    """
    folder = Path(runner.work_dir)
    data = 'test' if validates_on_test(runner.cfg) else 'validation'
    loop = runner.train_loop
    unit = 'iteration' if isinstance(loop, IterBasedTrainLoop) else 'epoch'
    count = runner.iter if unit == 'iteration' else runner.epoch
    end = f'after the last {unit} ({count})'
    when = f'on the {data} data {end}'
    lines = [] if runner.val_loop else [f'not tested {end}: there is no validation']
    if loop.stop_training:
        most = runner.max_iters if unit == 'iteration' else runner.max_epochs
        lines.append(f'stopped early, after {unit} {count} of {most}')
    for name, scalar in runner.message_hub.log_scalars.items():
        if name == 'val/accuracy/top1':
            lines.append(f'top-1 {when}: {scalar.current():.2f} %')
        elif name.startswith('val/') and name.count('/') > 1:  # val/time and the like have one
            lines.append(f'{name.removeprefix("val/")} {when}: {scalar.current():.2f}')
    best, is_best = _best_checkpoint(runner)
    if best is not None and best.exists():
        number = work_folder.checkpoint_number(best)
        lines.append(f'best {unit}: {number}, {is_best} on the {data} data')
    latest = work_folder.latest_checkpoint(folder)
    files = {
        f'checkpoint of the best {unit}': best,
        f'checkpoint of the last {unit}' if best else 'checkpoint': latest,
        'log': Path(runner.log_dir) / f'{runner.timestamp}.log',
        'attention maps': folder / 'attention_maps.png',
    }
    lines += [f'{name}: {_short(path)}' for name, path in files.items() if path and path.exists()]
    config = folder / Path(runner.cfg.filename or '').name
    if hint and runner.cfg.get('test_dataloader') and latest and config.is_file():
        words = ['fgplugins', 'test', _short(config), _short(best or latest)]
        lines.append(f'test it: {shlex.join(words)}')
    print('\n' + '\n'.join(lines))


def _short(path: Path) -> str:
    """A path as it is named from here, where it lies below; else in full."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


def _best_checkpoint(runner: Runner) -> tuple[Path | None, str]:
    """The best checkpoint by one score, if it is kept, and what its score is."""
    hook = next((h for h in runner.hooks if isinstance(h, CheckpointHook)), None)
    path = runner.message_hub.runtime_info.get('best_ckpt')
    if hook is None or not hook.save_best or path is None:
        return None, ''
    score = float(runner.message_hub.get_info('best_score'))
    return Path(path), shown_score(hook.key_indicators[0], score)
