# WARN, Table 1, row "28 3 4": AD = 3, AW = 4; tests every epoch
# In-block dropout as in the rows marked with it:
#   --cfg-options model.backbone.block_drop_rate=0.3
_base_ = [
    '_base_/datasets/cifar10.py',
    '_base_/schedules/cifar_wrn.py',
    '_base_/default_runtime.py',
]

model = dict(
    type='FineGrainedClassifier',
    backbone=dict(type='TimmNetwork', model_name='wrn28_10', head='mean'),
    head=dict(type='WARNHead', num_classes=10, taps=3, heads=4),
)
