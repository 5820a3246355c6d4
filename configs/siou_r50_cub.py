# ICASC, Table 5, "ResNet-50 + A_ch": 448 x 448 images; tests every epoch
_base_ = [
    '_base_/datasets/icasc_448.py',
    '_base_/schedules/siou_cub.py',
    '_base_/default_runtime.py',
]

model = dict(
    type='FineGrainedClassifier',
    backbone=dict(type='ResNet', depth=50, out_indices=(2, 3)),
    head=dict(type='SIoUHead', num_classes=200, kind='channel'),
)
# tools/train.py --pretrained loads these into the backbone; nothing is downloaded without it
pretrained_weights = 'torchvision://resnet50'
