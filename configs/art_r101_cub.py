# CRA-CNN, Table 1, ResNet-101; Table 2 by tools/test.py --uncropped
_base_ = './art_r50_cub.py'

model = dict(backbone=dict(depth=101))
pretrained_weights = 'torchvision://resnet101'
