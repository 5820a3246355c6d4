# CLAN in two scales on ResNet-50 (Table 6); tests every epoch
_base_ = [
    '_base_/datasets/cars_448.py',
    '_base_/schedules/clan.py',
    '_base_/default_runtime.py',
]

model = dict(
    type='FineGrainedClassifier',
    backbone=dict(type='ResNet', depth=50, out_indices=(2, 3)),
    head=dict(type='CLANHead', num_classes=196, taps=2, inner_channels=512),
)
pretrained_weights = 'torchvision://resnet50'
