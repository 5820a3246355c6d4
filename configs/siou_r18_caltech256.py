# ICASC, Table 3, "ResNet-18 + A_ch", 60 training images a category; tests every epoch
# 30 of them by --cfg-options
#   train_dataloader.dataset.train_per_class=30
# and A_px by model.head.kind=pixel
_base_ = [
    '_base_/datasets/caltech256_224.py',
    '_base_/schedules/siou_cosine.py',
    '_base_/default_runtime.py',
]

model = dict(
    type='FineGrainedClassifier',
    backbone=dict(type='ResNet', depth=18, out_indices=(2, 3)),
    head=dict(type='SIoUHead', num_classes=256, kind='channel'),
)
pretrained_weights = 'torchvision://resnet18'
