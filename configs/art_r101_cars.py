# CRA-CNN, Table 1, ResNet-101, Cars; Table 3: tools/test.py --uncropped; tests every epoch
_base_ = './art_r50_cars.py'

model = dict(backbone=dict(depth=101))
pretrained_weights = 'torchvision://resnet101'
