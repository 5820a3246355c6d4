# CRA-CNN, Table 1, ResNet-101 on Stanford Cars; Table 3 by tools/test.py --uncropped
_base_ = './art_r50_cars.py'

model = dict(backbone=dict(depth=101))
pretrained_weights = 'torchvision://resnet101'
