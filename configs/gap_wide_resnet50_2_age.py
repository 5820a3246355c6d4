# WARN, Table 3, row "WRN", Age; tests every epoch
_base_ = './warn_wide_resnet50_2_age.py'

model = dict(head=dict(_delete_=True, type='GAPHead', num_classes=8))
