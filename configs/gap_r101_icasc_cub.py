# ICASC, Table 5, "ResNet-101", by the recipe of ICASC; tests every epoch
_base_ = './siou_r101_cub.py'

model = dict(head=dict(_delete_=True, type='GAPHead', num_classes=200))
