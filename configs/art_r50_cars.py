# CRA-CNN, Table 1, ResNet-50 on Stanford Cars; Table 3 by tools/test.py --uncropped
_base_ = [
    '_base_/datasets/cars_short_448.py',
    '_base_/schedules/art.py',
    '_base_/art_runtime.py',
]

model = dict(
    type='FineGrainedClassifier',
    backbone=dict(type='ResNet', depth=50, out_indices=(3,)),
    head=dict(type='ARTHead', num_classes=196, view_size=224),
)
pretrained_weights = 'torchvision://resnet50'
