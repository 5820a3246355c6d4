# CRA-CNN, Table 1, "Baseline", ResNet-50, by the recipe of CRA-CNN; tests every epoch
# The paper tunes its baselines as its reference 20 does, without saying how.
_base_ = './art_r50_cars.py'

model = dict(head=dict(_delete_=True, type='GAPHead', num_classes=196))
custom_hooks = [dict(type='EpochSeedHook'), dict(type='AttentionMapHook', num_images=8)]
