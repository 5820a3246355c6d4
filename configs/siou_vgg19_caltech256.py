# ICASC, Table 3, "VGG-19 + A_ch"; tests every epoch
# conv4_4 and the pooled conv5_4, of the whole VGG-19 with its own three layers behind them.
# Weights of timm's vgg19: --pretrained
_base_ = './siou_r18_caltech256.py'

model = dict(backbone=dict(_delete_=True, type='TimmNetwork', model_name='vgg19', levels=(3, 5)))
pretrained_weights = None
