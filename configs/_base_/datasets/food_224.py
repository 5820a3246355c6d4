# UEC Food-100 (WARN, section 4.1): images cropped by their boxes, in training and testing. The data
# set has no official split, the paper names none: a random fifth of each class is for testing;
# split_seed of all three data sets draws another
_base_ = './cub_224.py'

train_pipeline = [
    dict(type='LoadImage'),
    dict(type='CropToBox'),
    dict(type='Resize', scale=(256, 256)),
    dict(type='RandomCrop', crop_size=224),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='PackInputs'),
]
test_pipeline = [
    dict(type='LoadImage'),
    dict(type='CropToBox'),
    dict(type='Resize', scale=(256, 256)),
    dict(type='CenterCrop', crop_size=224),
    dict(type='PackInputs'),
]
data_preprocessor = dict(num_classes=100)
train_dataloader = dict(dataset=dict(data_root='data/food100', pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(data_root='data/food100', pipeline=test_pipeline))
test_dataloader = dict(dataset=dict(data_root='data/food100', pipeline=test_pipeline))
