# siou with pixel-wise attention on ResNet-110; tests every epoch
_base_ = './gap_r110_cifar10.py'

model = dict(head=dict(type='SIoUHead', kind='pixel'))
