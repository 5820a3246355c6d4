# att2 on timm's mobilenetv2_100 (--pretrained downloads its weights from the hub),
# by the control's recipe
_base_ = './gap_mobilenetv2_cub.py'

model = dict(head=dict(type='Att2Head', taps=2))
