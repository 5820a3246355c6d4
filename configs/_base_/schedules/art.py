# CRA-CNN, section 4.1: SGD, batch 64, momentum 0.9, weight decay 5e-4, rate 1e-3, 1e-4 after 50
# epochs and times 0.1 every 45 after that. The paper does not say when it ends: here after one
# period without and one with the restriction of the attention.
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='SGD', lr=1e-3, momentum=0.9, weight_decay=5e-4),
)
param_scheduler = dict(type='MultiStepLR', by_epoch=True, milestones=[50, 95], gamma=0.1)
train_cfg = dict(by_epoch=True, max_epochs=140, val_interval=1)
val_cfg = dict()
test_cfg = dict()
auto_scale_lr = dict(base_batch_size=64, enable=False)
