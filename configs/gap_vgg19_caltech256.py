# ICASC, Table 3, "VGG-19"; tests every epoch
_base_ = './siou_vgg19_caltech256.py'

model = dict(head=dict(_delete_=True, type='GAPHead', num_classes=256))
