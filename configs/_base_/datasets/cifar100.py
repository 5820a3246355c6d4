_base_ = './cifar10.py'

data_preprocessor = dict(num_classes=100)
train_dataloader = dict(dataset=dict(data_root='data/cifar100'))
val_dataloader = dict(dataset=dict(data_root='data/cifar100'))
test_dataloader = dict(dataset=dict(data_root='data/cifar100'))
