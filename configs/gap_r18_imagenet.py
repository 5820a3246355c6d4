# ICASC, Table 4, "ResNet-18"; tests every epoch
_base_ = './siou_r18_imagenet.py'

model = dict(head=dict(_delete_=True, type='GAPHead', num_classes=1000))
