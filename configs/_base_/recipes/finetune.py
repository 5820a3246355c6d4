# tools/compare.py: the whole network trained with every method, all by this recipe
_base_ = ['../datasets/cub_224.py', '../schedules/finetune_small.py', '../default_runtime.py']

custom_hooks = [dict(type='EpochSeedHook')]  # a resumed cell goes on as the uninterrupted one

train_dataloader = dict(batch_size=32)
# by trials of the control on validation images (docs/compare.md)
optim_wrapper = dict(optimizer=dict(lr=5e-4))
# without a warm-up the first steps of new layers wreck what the backbone knows
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=True, end=1, convert_to_iter_based=True),
    dict(
        type='CosineAnnealingLR',
        by_epoch=True,
        begin=1,
        T_max=5,
        eta_min=1e-6,
        convert_to_iter_based=True,
    ),
]

# what a method is built with, other than its defaults: a new part that starts silent, where it can
methods = dict(warn=dict(output_init='zero'))
# hooks of a method, besides those of all
method_hooks = dict(art=[dict(type='RestrictionScheduleHook', begin=2, period=2)])
