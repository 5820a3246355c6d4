# CLAN, Table 6, "ResNet-101", by the recipe of CLAN; tests every epoch
_base_ = './gap_r50_448_aircraft.py'

model = dict(backbone=dict(depth=101))
pretrained_weights = 'torchvision://resnet101'
