# WARN, Table 1, row "40 3 4", CIFAR-100, with the dropout it was trained with; tests every epoch
_base_ = './warn_wrn28_10_cifar100.py'

model = dict(backbone=dict(model_name='wrn40_10', block_drop_rate=0.3))
