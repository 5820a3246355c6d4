# att2, (VGG-att)-pc: layer 13 alone; tests every epoch
_base_ = './att2_vgg_cifar100.py'

model = dict(head=dict(taps=1))
