# The control of siou and art on ResNet-110; tests every epoch
_base_ = [
    '_base_/datasets/cifar_crop.py',
    '_base_/schedules/cifar_resnet.py',
    '_base_/default_runtime.py',
]

model = dict(
    type='FineGrainedClassifier',
    backbone=dict(type='TimmNetwork', model_name='resnet110', head='mean'),
    head=dict(type='GAPHead', num_classes=10),
)
