# Generalised-mean pooling on the network and the digits of WARN's ablation study
default_scope = 'mmpretrain'
custom_imports = dict(imports=['fgplugins.zoo_mmpretrain'], allow_failed_imports=False)

model = dict(
    type='FineGrainedClassifier',
    backbone=dict(
        type='TIMMBackbone',
        model_name='clutter_cnn',
        features_only=True,
        out_indices=(3,),
        in_channels=1,
    ),
    head=dict(type='GeMHead', num_classes=10, p=3.0),
)
data_preprocessor = dict(num_classes=10, mean=[0.0], std=[255.0], to_rgb=False)

pipeline = [
    dict(type='LoadImage', color_type='grayscale'),
    dict(type='Resize', scale=(40, 40)),
    dict(type='PackInputs'),
]
dataset = dict(type='ClutteredDigits', distractors=8, canvas=40, pipeline=pipeline)
train_dataloader = dict(
    batch_size=128,
    num_workers=1,
    dataset=dict(split='train', num_images=20000, **dataset),
    sampler=dict(type='DefaultSampler', shuffle=True),
)
val_dataloader = dict(
    batch_size=250,
    num_workers=1,
    dataset=dict(split='val', num_images=2000, **dataset),
    sampler=dict(type='DefaultSampler', shuffle=False),
)
test_dataloader = dict(
    batch_size=250,
    num_workers=1,
    dataset=dict(split='test', num_images=5000, **dataset),
    sampler=dict(type='DefaultSampler', shuffle=False),
)
val_evaluator = dict(type='Accuracy', topk=(1,))
test_evaluator = val_evaluator

optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.1, momentum=0.9, weight_decay=5e-4))
param_scheduler = dict(type='MultiStepLR', by_epoch=True, milestones=[2], gamma=0.1)
train_cfg = dict(by_epoch=True, max_epochs=3, val_interval=1)
val_cfg = dict()
test_cfg = dict()
custom_hooks = [dict(type='EpochSeedHook'), dict(type='AttentionMapHook', num_images=8)]
env_cfg = dict(dist_cfg=dict(backend='nccl'))
