"""Arguments of `tools/train.py` and `tools/test.py` that need no zoo to be read."""

from __future__ import annotations

import argparse

__all__ = [
    'add_choice_arguments',
    'add_display_arguments',
    'add_run_arguments',
    'add_tracking_arguments',
]

TRACKERS = ('tensorboard', 'wandb', 'mlflow')


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """How a training is run: its length, batches, rate, workers and device."""
    parser.add_argument(
        '--epochs',
        type=int,
        metavar='N',
        help="train for N epochs; the rate's schedule is stretched or shortened with them",
    )
    parser.add_argument(
        '--batch-size',
        type=int,
        metavar='N',
        help='images of a training step, in each process; the rate stays as it is without '
        '--auto-scale-lr',
    )
    parser.add_argument(
        '--lr', type=float, metavar='RATE', help='base rate; layers keep their multiples of it'
    )
    parser.add_argument(
        '--ema',
        nargs='?',
        const=0.0002,
        type=float,
        metavar='MOMENTUM',
        help='average the weights over the steps of training; validated, saved and drawn are the '
        'averages. MOMENTUM is the share of the newest weights late in training (0.0002)',
    )
    parser.add_argument(
        '--workers', type=int, metavar='N', help='processes that load images; 0 loads in this one'
    )
    parser.add_argument(
        '--device',
        choices=['auto', 'cpu', 'cuda'],
        default='auto',
        help='where to train (auto: a GPU if there is one)',
    )


def add_choice_arguments(parser: argparse.ArgumentParser) -> None:
    """What is chosen by the validation images."""
    parser.add_argument(
        '--save-best',
        action='store_true',
        help='also keep the checkpoint of the best epoch, by the validation images',
    )
    parser.add_argument(
        '--early-stop',
        type=int,
        metavar='PATIENCE',
        help='stop after so many validations in a row without a better score',
    )


def add_tracking_arguments(parser: argparse.ArgumentParser) -> None:
    """Where a training is followed besides its log."""
    parser.add_argument(
        '--track',
        nargs='+',
        action='extend',
        choices=TRACKERS,
        default=[],
        metavar='SERVICE',
        help='also send losses, scores and, after every validation, attention maps of the same '
        f'validation images to {", ".join(TRACKERS[:-1])} or {TRACKERS[-1]}',
    )


def add_display_arguments(parser: argparse.ArgumentParser) -> None:
    """How much a run prints; its log file has everything."""
    parser.set_defaults(display='auto')
    display = parser.add_mutually_exclusive_group()
    display.add_argument(
        '--quiet',
        action='store_const',
        dest='display',
        const='quiet',
        help='no notes and no progress: print the result and its files only',
    )
    display.add_argument(
        '--verbose',
        action='store_const',
        dest='display',
        const='verbose',
        help='print every line of the log in place of a progress bar',
    )
