# att2, Table 1, "VGG-PAN" (appendix A.2): layer 10 gated, attention at layer 13; tests every epoch
_base_ = './att2_vgg_1level_cifar10.py'

model = dict(backbone=dict(progressive=True))
