# siou on a small backbone, by the control's recipe
_base_ = './gap_mobilenetv2_cub.py'

model = dict(backbone=dict(out_indices=(3, 4)), head=dict(type='SIoUHead', kind='channel'))
