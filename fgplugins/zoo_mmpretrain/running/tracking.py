"""Following a training in TensorBoard, Weights & Biases or MLflow (``--track``)."""

from __future__ import annotations

import importlib.util
import netrc
import os
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from mmengine.config import Config, ConfigDict

from fgplugins.errors import UserError
from fgplugins.zoo_mmpretrain.running.choosing import validates_on_test
from fgplugins.zoo_mmpretrain.running.settings import short_type

__all__ = ['drop_tracking', 'set_tracking']

PROJECT = 'fgplugins'
BACKENDS = {
    'tensorboard': 'TensorboardVisBackend',
    'wandb': 'fgplugins.WandbBackend',
    'mlflow': 'fgplugins.MLflowBackend',
}
# mmengine's own, too, which a config can have
TRACKING = ('TensorboardVisBackend', 'WandbBackend', 'WandbVisBackend', 'MLflowBackend',
            'MLflowVisBackend')  # fmt: skip


def set_tracking(cfg: Config, names: Sequence[str]) -> list[str]:
    """Send scalars and attention maps of validation images to some services, too.

    Args:
        cfg: changed in place; the back ends that it has stay.
        names: keys of `BACKENDS`.

    Returns:
        Notes on where they go.

    Raises:
        UserError: if a service's package is not installed.
    """
    if not names:
        return []
    lacking = [name for name in dict.fromkeys(names) if not importlib.util.find_spec(name)]
    if lacking:
        raise UserError(
            f'--track {" ".join(lacking)}: not installed: pip install {" ".join(lacking)}'
        )
    cfg.visualizer = cfg.get('visualizer') or ConfigDict(type='UniversalVisualizer')
    backends = list(cfg.visualizer.get('vis_backends') or [ConfigDict(type='LocalVisBackend')])
    known, notes = {short_type(backend) for backend in backends}, []
    run = Path(cfg.work_dir).name
    for name in dict.fromkeys(names):
        backend = ConfigDict(type=BACKENDS[name])
        if name == 'wandb':
            backend.init_kwargs = dict(project=PROJECT, name=run)
            if not _has_login():
                backend.init_kwargs['mode'] = 'offline'
                notes.append(
                    f'--track wandb: no login is known here, so the run stays in {cfg.work_dir}: '
                    'wandb sync sends it, wandb login sends the next ones'
                )
        elif name == 'mlflow':
            backend.update(exp_name=PROJECT, run_name=run)
            if os.environ.get('MLFLOW_TRACKING_URI'):
                backend.tracking_uri = os.environ['MLFLOW_TRACKING_URI']
        if short_type(backend) not in known:
            backends.append(backend)
    cfg.visualizer.vis_backends = backends
    pictures = [h for h in cfg.get('custom_hooks') or [] if short_type(h) == 'AttentionMapHook']
    for hook in pictures:
        hook.setdefault('interval', 1)
    if pictures and cfg.get('val_dataloader') and validates_on_test(cfg):
        notes.append(
            '--track: this config looks at the test images after every epoch, and so the attention '
            'maps are of these'
        )
    return notes


def drop_tracking(cfg: Config) -> None:
    """Leave the services out: a test is no training to follow."""
    visualizer = cfg.get('visualizer')
    if visualizer and visualizer.get('vis_backends'):
        kept = [b for b in visualizer.vis_backends if short_type(b) not in TRACKING]
        visualizer.vis_backends = kept


def _has_login() -> bool:
    """Whether Weights & Biases would find a key, or is told by its own variable what to do."""
    if os.environ.get('WANDB_API_KEY') or os.environ.get('WANDB_MODE'):
        return True
    host = urlsplit(os.environ.get('WANDB_BASE_URL', 'https://api.wandb.ai')).hostname
    names = [os.environ.get('NETRC'), Path.home() / '.netrc', Path.home() / '_netrc']
    for name in filter(None, names):
        try:
            if netrc.netrc(name).authenticators(host):
                return True
        except (OSError, netrc.NetrcParseError):
            continue
    return False
