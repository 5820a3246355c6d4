# ICASC, Table 2, "ResNet-110 + A_px"; tests every epoch
# A_ch by --cfg-options model.head.kind=channel. With --terms, tools/test.py prints the soft IoU on
# test images; it takes the control's checkpoint as well.
_base_ = './gap_r110_cifar100.py'

model = dict(head=dict(type='SIoUHead', kind='pixel'))
