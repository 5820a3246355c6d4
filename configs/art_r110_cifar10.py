# art on ResNet-110, by the control's recipe: both views have the image's size, since half of it is
# too little to recognise anything
_base_ = './gap_r110_cifar10.py'

model = dict(head=dict(type='ARTHead', view_size=32))
custom_hooks = [
    dict(type='EpochSeedHook'),
    dict(type='AttentionMapHook', num_images=8),
    dict(type='RestrictionScheduleHook', begin=50, period=45),
]
