# CLAN, section 4.1: 448 x 448 images, no boxes. The paper says no more; crops and flips are what
# the methods it compares with use. Any folder of labelled images: --data-root.
_base_ = './cub_224.py'

train_pipeline = [
    dict(type='LoadImage'),
    dict(type='Resize', scale=(512, 512)),
    dict(type='RandomCrop', crop_size=448),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='PackInputs'),
]
test_pipeline = [
    dict(type='LoadImage'),
    dict(type='Resize', scale=(512, 512)),
    dict(type='CenterCrop', crop_size=448),
    dict(type='PackInputs'),
]
train_dataloader = dict(batch_size=36, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(batch_size=36, dataset=dict(pipeline=test_pipeline))
test_dataloader = dict(batch_size=36, dataset=dict(pipeline=test_pipeline))
