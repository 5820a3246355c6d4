# ICASC, Table 3, "ResNet-18"; tests every epoch
_base_ = './siou_r18_caltech256.py'

model = dict(head=dict(_delete_=True, type='GAPHead', num_classes=256))
