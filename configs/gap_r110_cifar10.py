# The control of siou and art on ResNet-110
_base_ = [
    '_base_/datasets/cifar_crop.py',
    '_base_/schedules/cifar_resnet.py',
    '_base_/default_runtime.py',
]

model = dict(
    type='FineGrainedClassifier',
    backbone=dict(
        type='TIMMBackbone', model_name='resnet110', features_only=True, out_indices=(2,)
    ),
    head=dict(type='GAPHead', num_classes=10),
)
