# att2, Table 1, (VGG-att2)-concat-dp; tests every epoch
_base_ = './att2_vgg_cifar100.py'

model = dict(head=dict(compat='dp'))
