# att2, (VGG-att3)-concat-pc: layers 7, 10 and 13
_base_ = './att2_vgg_cifar100.py'

model = dict(backbone=dict(out_indices=(0, 1, 2)), head=dict(taps=3))
