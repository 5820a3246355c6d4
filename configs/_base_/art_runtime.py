# default_runtime.py, and the schedule of CRA-CNN's restriction (section 4.1): after the first 50
# epochs it is off for 45 and on for 45
_base_ = './default_runtime.py'

custom_hooks = [
    dict(type='EpochSeedHook'),
    dict(type='AttentionMapHook', num_images=8),
    dict(type='RestrictionScheduleHook', begin=50, period=45),
]
