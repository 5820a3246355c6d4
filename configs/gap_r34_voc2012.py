# ICASC, Table 6, "ResNet-34", by the recipe of ResNet-18; tests every epoch
_base_ = './gap_r18_voc2012.py'

model = dict(backbone=dict(depth=34))
pretrained_weights = 'torchvision://resnet34'
