# WARN, section 4.4, on ResNet-50, a third of the paper's network; tests every epoch
# The paper's own is warn_wide_resnet50_2_cub. AD = 3, AW = 4.
_base_ = './gap_r50_cub.py'

model = dict(
    backbone=dict(out_indices=(1, 2, 3)),
    head=dict(type='WARNHead', taps=3, heads=4),
)
