# He et al., CVPR 2016, section 4.2, and ICASC, section 4.1: four black pixels on each side, a crop
# of 32 x 32, horizontal flips. They subtract the mean of every pixel; here it is every channel's.
_base_ = './cifar10.py'

train_pipeline = [
    dict(type='LoadImage'),
    dict(type='Resize', scale=(32, 32)),
    dict(type='RandomCrop', crop_size=32, padding=4),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='PackInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
