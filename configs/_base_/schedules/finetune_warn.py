# WARN, section 4.4: 100 epochs, batch 64, rate 1e-3, ten times that for the new layers, divided by
# 10 every 30 epochs (the paper says iterations). It also stops "if a plateau is reached", on the
# data it reports; here every epoch is run. Momentum and weight decay: official code, for CIFAR.
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='SGD', lr=1e-3, momentum=0.9, nesterov=True, weight_decay=5e-4),
    paramwise_cfg=dict(custom_keys={'head.': dict(lr_mult=10)}),
)
param_scheduler = dict(type='StepLR', by_epoch=True, step_size=30, gamma=0.1)
train_cfg = dict(by_epoch=True, max_epochs=100, val_interval=1)
val_cfg = dict()
test_cfg = dict()
auto_scale_lr = dict(base_batch_size=64, enable=False)
