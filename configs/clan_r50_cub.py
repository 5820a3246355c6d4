# CLAN in two scales on ResNet-50 (Table 6): conv4_x and conv5_x, C_int = 512; tests every epoch
_base_ = [
    '_base_/datasets/fine_grained_448.py',
    '_base_/schedules/clan.py',
    '_base_/default_runtime.py',
]

model = dict(
    type='FineGrainedClassifier',
    backbone=dict(type='ResNet', depth=50, out_indices=(2, 3)),
    head=dict(type='CLANHead', num_classes=200, taps=2, inner_channels=512),
)
# tools/train.py --pretrained loads these into the backbone; nothing is downloaded without it
pretrained_weights = 'torchvision://resnet50'
