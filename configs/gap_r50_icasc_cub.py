# ICASC, Table 5, "ResNet-50", by the recipe of ICASC; tests every epoch
_base_ = './siou_r50_cub.py'

model = dict(head=dict(_delete_=True, type='GAPHead', num_classes=200))
