# CLAN in two scales on ResNet-101 (Table 6); tests every epoch
_base_ = './clan_r50_cub.py'

model = dict(backbone=dict(depth=101))
pretrained_weights = 'torchvision://resnet101'
