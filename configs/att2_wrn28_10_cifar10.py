# WARN, Table 1, row "WRN-att2 28": att2 on WRN-28-10 by WARN's recipe; tests every epoch
_base_ = './warn_wrn28_10_cifar10.py'

model = dict(head=dict(_delete_=True, type='Att2Head', num_classes=10, taps=2))
