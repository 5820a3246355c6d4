# Small images for fine-tuning on a CPU. Any folder of labelled images: --data-root. A tenth of each
# class's training images is for validation, where the folder has no val/ of its own
_base_ = './cub_224.py'

train_pipeline = [
    dict(type='LoadImage'),
    dict(type='Resize', scale=(184, 184)),
    dict(type='RandomCrop', crop_size=160),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='PackInputs'),
]
test_pipeline = [
    dict(type='LoadImage'),
    dict(type='Resize', scale=(184, 184)),
    dict(type='CenterCrop', crop_size=160),
    dict(type='PackInputs'),
]
train_dataloader = dict(batch_size=32, dataset=dict(val_share=0.1, pipeline=train_pipeline))
val_dataloader = dict(
    batch_size=64, dataset=dict(split='val', val_share=0.1, pipeline=test_pipeline)
)
test_dataloader = dict(batch_size=64, dataset=dict(pipeline=test_pipeline))
