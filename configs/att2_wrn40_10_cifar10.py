# WARN, Table 1, row "WRN-att2 40", with dropout; tests every epoch
_base_ = './att2_wrn28_10_cifar10.py'

model = dict(backbone=dict(model_name='wrn40_10', block_drop_rate=0.3))
