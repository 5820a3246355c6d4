# CRA-CNN, Table 1, ResNet-50, CUB; Table 2: tools/test.py --uncropped; tests every epoch
_base_ = [
    '_base_/datasets/cub_short_448.py',
    '_base_/schedules/art.py',
    '_base_/art_runtime.py',
]

model = dict(
    type='FineGrainedClassifier',
    backbone=dict(type='ResNet', depth=50, out_indices=(3,)),
    head=dict(type='ARTHead', num_classes=200, view_size=224),
)
# tools/train.py --pretrained loads these into the backbone; nothing is downloaded without it
pretrained_weights = 'torchvision://resnet50'
