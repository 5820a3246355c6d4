# att2, appendix A.3: SGD, batch 128, momentum 0.9, weight decay 5e-4, 300 epochs, rate 1 halved
# every 25 epochs. Its learning rate decay of 1e-7 a step comes to one percent and is left out.
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='SGD', lr=1.0, momentum=0.9, weight_decay=5e-4),
)
param_scheduler = dict(type='StepLR', by_epoch=True, step_size=25, gamma=0.5)
train_cfg = dict(by_epoch=True, max_epochs=300, val_interval=1)
val_cfg = dict()
test_cfg = dict()
auto_scale_lr = dict(base_batch_size=128, enable=False)
