# ICASC, Table 6, "ResNet-18 + A_px": several classes an image; tests every epoch
_base_ = [
    '_base_/datasets/voc2012_224.py',
    '_base_/schedules/siou_cosine.py',
    '_base_/default_runtime.py',
]

model = dict(
    type='FineGrainedClassifier',
    backbone=dict(type='ResNet', depth=18, out_indices=(2, 3)),
    head=dict(type='SIoUHead', num_classes=20, kind='pixel', multi_label=True),
)
pretrained_weights = 'torchvision://resnet18'
