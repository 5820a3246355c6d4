# att2's baseline VGG-PAN (appendix A.2): layer 10 gated on its way up, attention at layer 13
_base_ = './att2_vgg_1level_cifar100.py'

model = dict(backbone=dict(progressive=True))
