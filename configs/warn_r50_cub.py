# WARN, section 4.4, on ResNet-50 instead of WRN-50-4, whose weights are not published: AD = 3,
# AW = 4. Section 4.3's "gradients are multiplied by 0.1 in the base model" is the ten times smaller
# rate of the schedule, so base_grad stays 1.
_base_ = './gap_r50_cub.py'

model = dict(
    backbone=dict(out_indices=(1, 2, 3)),
    head=dict(type='WARNHead', taps=3, heads=4),
)
