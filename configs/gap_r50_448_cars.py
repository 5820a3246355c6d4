# CLAN, Table 6, "ResNet-50", by the recipe of CLAN; tests every epoch
_base_ = './clan_r50_cars.py'

model = dict(
    backbone=dict(out_indices=(3,)),
    head=dict(_delete_=True, type='GAPHead', num_classes=196),
)
