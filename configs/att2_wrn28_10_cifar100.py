# WRN-att2 of WARN, Table 1: att2 on WRN-28-10 by the same recipe; tests every epoch
_base_ = './warn_wrn28_10_cifar100.py'

model = dict(
    head=dict(_delete_=True, type='Att2Head', num_classes=100, taps=2),
)
