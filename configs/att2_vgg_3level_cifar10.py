# att2, (VGG-att3)-concat-pc: layers 7, 10 and 13; tests every epoch
_base_ = './att2_vgg_cifar10.py'

model = dict(head=dict(taps=3))
