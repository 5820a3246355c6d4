# The control of CLAN's configs: ResNet-50 by the same recipe; tests every epoch
_base_ = './clan_r50_cub.py'

model = dict(
    backbone=dict(out_indices=(3,)),
    head=dict(_delete_=True, type='GAPHead', num_classes=200),
)
