# ICASC, Table 6, "ResNet-18"; tests every epoch
_base_ = './siou_r18_voc2012.py'

model = dict(
    head=dict(_delete_=True, type='GAPHead', num_classes=20, multi_label=True),
)
