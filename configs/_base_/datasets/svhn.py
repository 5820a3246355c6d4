# SVHN's cropped digits; no flips, since a mirrored digit is another one
_base_ = './cifar10.py'

train_pipeline = [
    dict(type='LoadImage'),
    dict(type='Resize', scale=(32, 32)),
    dict(type='PackInputs'),
]
train_dataloader = dict(dataset=dict(data_root='data/svhn', pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(data_root='data/svhn'))
test_dataloader = dict(dataset=dict(data_root='data/svhn'))
