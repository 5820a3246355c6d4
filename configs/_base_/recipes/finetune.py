# tools/compare.py: the whole network trained with every method, all by this recipe
_base_ = ['../datasets/cub_224.py', '../schedules/finetune_small.py', '../default_runtime.py']

custom_hooks = [dict(type='EpochSeedHook')]  # a resumed cell goes on as the uninterrupted one

# the control's best of six trials on validation images (docs/compare.md)
optim_wrapper = dict(optimizer=dict(lr=1.5e-3))

# what a method is built with, other than its defaults: a new part that starts silent, where it can
methods = dict(warn=dict(output_init='zero'))
# hooks of a method, besides those of all
method_hooks = dict(art=[dict(type='RestrictionScheduleHook', begin=2, period=2)])
