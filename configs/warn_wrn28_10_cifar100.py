# WARN, Table 1, row "28 3 4", CIFAR-100; tests every epoch
_base_ = './warn_wrn28_10_cifar10.py'

model = dict(head=dict(num_classes=100))
data_preprocessor = dict(num_classes=100)
train_dataloader = dict(dataset=dict(data_root='data/cifar100'))
val_dataloader = dict(dataset=dict(data_root='data/cifar100'))
test_dataloader = dict(dataset=dict(data_root='data/cifar100'))
