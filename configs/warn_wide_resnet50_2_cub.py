# WARN, Table 3, Birds; tests every epoch
# The paper calls its network WRN-50-4; by the parameters that it prints (Table 4) it is this one,
# whose weights are published. AD = 3, AW = 4. Section 4.3's "gradients are multiplied by 0.1 in the
# base model" is the ten times smaller rate of the schedule, so base_grad stays 1.
_base_ = [
    '_base_/datasets/cub_224.py',
    '_base_/schedules/finetune_warn.py',
    '_base_/default_runtime.py',
]

model = dict(
    type='FineGrainedClassifier',
    backbone=dict(type='TimmNetwork', model_name='wide_resnet50_2.tv_in1k'),
    head=dict(type='WARNHead', num_classes=200, taps=3, heads=4),
)
