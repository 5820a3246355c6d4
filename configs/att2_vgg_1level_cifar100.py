# att2, (VGG-att)-pc: layer 13 alone
_base_ = './att2_vgg_cifar100.py'

model = dict(backbone=dict(out_indices=(2,)), head=dict(taps=1))
