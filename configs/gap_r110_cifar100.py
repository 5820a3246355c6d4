# ICASC, Table 2, "ResNet-110": the control; tests every epoch
_base_ = './gap_r110_cifar10.py'

model = dict(head=dict(num_classes=100))
data_preprocessor = dict(num_classes=100)
train_dataloader = dict(dataset=dict(data_root='data/cifar100'))
val_dataloader = dict(dataset=dict(data_root='data/cifar100'))
test_dataloader = dict(dataset=dict(data_root='data/cifar100'))
