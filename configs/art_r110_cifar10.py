# art on ResNet-110, by the control's recipe; tests every epoch
# Both views have the image's size, since half of it is too little to recognise anything
_base_ = './gap_r110_cifar10.py'

model = dict(head=dict(type='ARTHead', view_size=32))
# the layer that proposes where to look learns at the paper's rate of 1e-3: at 0.1 its proposals,
# and the loss that restricts them, grow without bound in the first steps
optim_wrapper = dict(
    paramwise_cfg=dict(custom_keys={'regularizer.proposal': dict(lr_mult=0.01)}),
)
custom_hooks = [
    dict(type='EpochSeedHook'),
    dict(type='AttentionMapHook', num_images=8),
    dict(type='RestrictionScheduleHook', begin=50, period=45),
]
