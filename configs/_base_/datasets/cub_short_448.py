# CRA-CNN, section 4.1: the shorter side becomes 512; a random crop of 448 x 448, in testing the
# centre. It does not mention mirror images; the methods it compares with use them.
_base_ = './fine_grained_448.py'

train_pipeline = [
    dict(type='LoadImage'),
    dict(type='ResizeEdge', scale=512, edge='short'),
    dict(type='RandomCrop', crop_size=448),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='PackInputs'),
]
test_pipeline = [
    dict(type='LoadImage'),
    dict(type='ResizeEdge', scale=512, edge='short'),
    dict(type='CenterCrop', crop_size=448),
    dict(type='PackInputs'),
]
train_dataloader = dict(batch_size=64, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(batch_size=64, dataset=dict(pipeline=test_pipeline))
test_dataloader = dict(batch_size=64, dataset=dict(pipeline=test_pipeline))
