# ICASC, Table 5, "ResNet-101 + A_ch"; tests every epoch
_base_ = './siou_r50_cub.py'

model = dict(backbone=dict(depth=101))
pretrained_weights = 'torchvision://resnet101'
