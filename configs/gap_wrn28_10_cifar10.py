# WARN, Table 1, row "WRN 28"; tests every epoch
_base_ = './warn_wrn28_10_cifar10.py'

model = dict(head=dict(_delete_=True, type='GAPHead', num_classes=10))
