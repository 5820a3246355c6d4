# att2, appendix A.3, CUB: rate 0.1 for 30 epochs, doubled twice over the next 60, then halved every
# 30 epochs of the next 200
_base_ = './att2_vgg.py'

optim_wrapper = dict(optimizer=dict(lr=0.1))
param_scheduler = [
    dict(type='MultiStepLR', by_epoch=True, milestones=[30, 60], gamma=2.0),
    dict(
        type='MultiStepLR', by_epoch=True, milestones=[90, 120, 150, 180, 210, 240, 270], gamma=0.5
    ),
]
train_cfg = dict(max_epochs=290)
