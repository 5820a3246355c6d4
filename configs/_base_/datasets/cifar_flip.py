# att2: horizontal flips and no crops (official code). The paper whitens the images by ZCA; here
# they are normalised by their mean and deviation
_base_ = './cifar10.py'

train_pipeline = [
    dict(type='LoadImage'),
    dict(type='Resize', scale=(32, 32)),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='PackInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
