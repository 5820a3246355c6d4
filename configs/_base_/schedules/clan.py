# CLAN, section 4.1: SGD, momentum 0.9, weight decay 1e-4, batch 36, 120 epochs, rate 0.01 times 0.9
# every two epochs (ResNets)
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='SGD', lr=0.01, momentum=0.9, weight_decay=1e-4),
)
param_scheduler = dict(type='StepLR', by_epoch=True, step_size=2, gamma=0.9)
train_cfg = dict(by_epoch=True, max_epochs=120, val_interval=1)
val_cfg = dict()
test_cfg = dict()
auto_scale_lr = dict(base_batch_size=36, enable=False)
