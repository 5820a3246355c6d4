# art on timm's mobilenetv2_100 (--pretrained downloads its weights from the hub),
# by the control's recipe; the restriction's periods are shorter, as the run is
_base_ = './gap_mobilenetv2_cub.py'

model = dict(head=dict(type='ARTHead', view_size=80))
custom_hooks = [
    dict(type='EpochSeedHook'),
    dict(type='AttentionMapHook', num_images=8),
    dict(type='RestrictionScheduleHook', begin=2, period=2),
]
