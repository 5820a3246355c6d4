# ICASC, section 4.1, CIFAR-100: SGD, batch 128, momentum 0.9, weight decay 5e-4, rate 0.1 divided
# by 10 at epochs 81 and 122 of 160. He et al. start their 110 layers at 0.01 for some 400 steps;
# ICASC does not mention it.
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='SGD', lr=0.1, momentum=0.9, weight_decay=5e-4),
)
param_scheduler = dict(type='MultiStepLR', by_epoch=True, milestones=[81, 122], gamma=0.1)
train_cfg = dict(by_epoch=True, max_epochs=160, val_interval=1)
val_cfg = dict()
test_cfg = dict()
auto_scale_lr = dict(base_batch_size=128, enable=False)
