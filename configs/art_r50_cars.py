# CRA-CNN, Table 1, ResNet-50, Cars; Table 3: tools/test.py --uncropped; tests every epoch
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
