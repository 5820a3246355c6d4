# att2, Table 1, row "RN-164"; tests every epoch
_base_ = './att2_resnet164_cifar10.py'

model = dict(head=dict(_delete_=True, type='GAPHead', num_classes=10))
