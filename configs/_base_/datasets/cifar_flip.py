# att2: horizontal flips and no crops (official code); colours normalised as appendix A.1 says, in
# YUV with Y normalised locally (the code that A.2 names). The official scripts have this for
# CIFAR-10, and CIFAR-100 whitened by ZCA, which A.4 has for other data only
_base_ = './cifar10.py'

data_preprocessor = dict(mean=None, std=None, to_rgb=False)
train_pipeline = [
    dict(type='LoadImage'),
    dict(type='Resize', scale=(32, 32)),
    dict(type='LocalContrastYUV'),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='PackInputs'),
]
test_pipeline = [
    dict(type='LoadImage'),
    dict(type='Resize', scale=(32, 32)),
    dict(type='LocalContrastYUV'),
    dict(type='PackInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
