# WARN, section 4.2: SGD, learning rate 0.1 divided by 10 after epoch 60 of 200, on 200,000 images.
# Here 7 epochs on a tenth of the images, minutes on two cores, the rate divided after 5. Momentum
# and weight decay are the official code's for CIFAR; the paper gives none.
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='SGD', lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4),
    clip_grad=dict(max_norm=5),  # not in the paper: the first steps at this rate can overshoot
)
param_scheduler = dict(type='MultiStepLR', by_epoch=True, milestones=[5], gamma=0.1)
train_cfg = dict(by_epoch=True, max_epochs=7, val_interval=1)
val_cfg = dict()
test_cfg = dict()
auto_scale_lr = dict(base_batch_size=128, enable=False)
