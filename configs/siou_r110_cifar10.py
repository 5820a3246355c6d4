# siou with pixel-wise attention on ResNet-110
_base_ = './gap_r110_cifar10.py'

model = dict(backbone=dict(out_indices=(1, 2)), head=dict(type='SIoUHead', kind='pixel'))
