# WARN, Table 3, Cars; tests every epoch
_base_ = [
    '_base_/datasets/cars_224.py',
    '_base_/schedules/finetune_warn.py',
    '_base_/default_runtime.py',
]

model = dict(
    type='FineGrainedClassifier',
    backbone=dict(type='TimmNetwork', model_name='wide_resnet50_2.tv_in1k'),
    head=dict(type='WARNHead', num_classes=196, taps=3, heads=4),
)
