r"""Strip a checkpoint of what exists in training only, and check that the scores stay the same.

    python tools/deploy.py configs/siou_r50_cub.py work_dirs/siou_r50_cub/epoch_90.pth
    python tools/deploy.py art last.pth.tar --model-kwargs backbone=resnet50 num_classes=200

siou and art become the plain backbone with its classifier: the file then loads into timm's or
MMPretrain's own model. If the model is a config's, a config to test the file with is written beside
it.
"""

from __future__ import annotations

import signal

signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends the imports quietly

import argparse
import shlex
from pathlib import Path

from fgplugins.errors import UserError
from fgplugins.utils.arguments import add_model_arguments
from fgplugins.utils.command_line import check_outputs, command_parser, main_guard, require_module


def parse_args() -> argparse.Namespace:
    parser = command_parser(__doc__)
    add_model_arguments(parser, checkpoint=True)
    parser.add_argument('--out', help='the file to write (<checkpoint>_deployed.pth beside it)')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    check_outputs(args, 'out')
    source = Path(args.checkpoint)
    name = source.name.removesuffix('.tar').removesuffix(source.suffix).removesuffix('.pth')
    out = Path(args.out) if args.out else source.with_name(f'{name}_deployed.pth')
    if out.suffix != '.pth':
        raise UserError(f'--out {out}: must end in .pth')
    if out.resolve() == source.resolve():
        raise UserError(f'--out {out} is the checkpoint itself')
    require_module('fgplugins.analysis.loading')

    import torch

    from fgplugins.analysis.loading import load_model

    loaded = load_model(args.model, args.checkpoint, args.model_kwargs, args.cfg_options)
    if loaded.config is None:
        from fgplugins.zoo_timm import ComposedModel
        from fgplugins.zoo_timm.deploy import deploy, deployed_checkpoint

        if not isinstance(loaded.model, ComposedModel):
            raise UserError(f'{args.model} is a plain network; there is nothing to strip')
        model, architecture, arguments = deploy(loaded.model)
        content = deployed_checkpoint(model, architecture, arguments, loaded.classes, loaded.data)
        given = ', '.join(f'{k}={v!r}' for k, v in arguments.items())
        use = f'timm.create_model({architecture!r}, {given}, checkpoint_path={str(out)!r})'
    else:
        from fgplugins.zoo_mmpretrain.deploy import deploy

        model, shipped = deploy(loaded.model, loaded.config, loaded.input_size)
        meta = {'cfg': shipped.pretty_text}
        if loaded.classes:
            meta['dataset_meta'] = {'classes': loaded.classes}
        content = {'meta': meta, 'state_dict': model.state_dict()}
        config = out.with_suffix('.py')
        shipped.dump(config)
        use = shlex.join(['python', 'tools/test.py', str(config), str(out)])
        use += ' --data-root <folder of the data>'
    torch.save(content, out)
    parameters = sum(p.numel() for p in model.parameters())
    print(f'{type(model).__name__}, {parameters:,} parameters, scores equal bit for bit: {out}')
    print(f'use: {use}')


if __name__ == '__main__':
    main_guard(main)
