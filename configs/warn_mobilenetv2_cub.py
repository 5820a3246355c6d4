# warn on a small backbone, by the control's recipe
_base_ = './gap_mobilenetv2_cub.py'

model = dict(head=dict(type='WARNHead', taps=3))
