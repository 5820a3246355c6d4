# ICASC, Table 4, "ResNet-18 + A_ch"; "+ tenCrop" by tools/test.py --tta; tests every epoch
_base_ = [
    '_base_/datasets/imagenet_224.py',
    '_base_/schedules/imagenet_resnet.py',
    '_base_/default_runtime.py',
]

model = dict(
    type='FineGrainedClassifier',
    backbone=dict(type='ResNet', depth=18, out_indices=(2, 3)),
    head=dict(type='SIoUHead', num_classes=1000, kind='channel'),
)
