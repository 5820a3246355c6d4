# The control on a small backbone, for a CPU. --pretrained downloads the weights of timm's
# mobilenetv2_100 from the hub; without one: --pretrained FILE, or gap_efficientnetlite0_cub.py
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
