# att2 on a small backbone, by the control's recipe
_base_ = './gap_mobilenetv2_cub.py'

model = dict(head=dict(type='Att2Head', taps=2))
