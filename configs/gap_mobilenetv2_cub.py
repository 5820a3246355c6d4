# The control on a small backbone, for a CPU. Weights of timm's mobilenetv2_100: --pretrained
_base_ = [
    '_base_/datasets/cub_160.py',
    '_base_/schedules/finetune_small.py',
    '_base_/default_runtime.py',
]

model = dict(
    type='FineGrainedClassifier',
    backbone=dict(type='TimmNetwork', model_name='mobilenetv2_100'),
    head=dict(type='GAPHead', num_classes=200),
)
