# att2, Table 1, (VGG-att2)-concat-pc, CIFAR-100; tests every epoch
_base_ = './att2_vgg_cifar10.py'

model = dict(head=dict(num_classes=100))
data_preprocessor = dict(num_classes=100)
train_dataloader = dict(dataset=dict(data_root='data/cifar100'))
val_dataloader = dict(dataset=dict(data_root='data/cifar100'))
test_dataloader = dict(dataset=dict(data_root='data/cifar100'))
