# WARN, Table 3, row "WRN", Gender; tests every epoch
_base_ = './warn_wide_resnet50_2_gender.py'

model = dict(head=dict(_delete_=True, type='GAPHead', num_classes=2))
