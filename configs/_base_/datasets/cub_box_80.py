# att2, Table 2, CUB (appendix A.1, Table 4): birds cropped by their boxes, 80 x 80. Colours are not
# normalised: values between 0 and 1 (official code). Flips, as for CIFAR.
_base_ = './cub_224.py'

data_preprocessor = dict(mean=[0.0, 0.0, 0.0], std=[255.0, 255.0, 255.0])
train_pipeline = [
    dict(type='LoadImage'),
    dict(type='CropToBox'),
    dict(type='Resize', scale=(80, 80)),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='PackInputs'),
]
test_pipeline = [
    dict(type='LoadImage'),
    dict(type='CropToBox'),
    dict(type='Resize', scale=(80, 80)),
    dict(type='PackInputs'),
]
train_dataloader = dict(batch_size=128, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(batch_size=256, dataset=dict(pipeline=test_pipeline))
test_dataloader = dict(batch_size=256, dataset=dict(pipeline=test_pipeline))
