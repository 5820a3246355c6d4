# att2, appendix A.2 and A.3: RN-att2 on ResNet-164, CIFAR-100; tests every epoch
_base_ = './att2_resnet164_cifar10.py'

model = dict(head=dict(num_classes=100))
data_preprocessor = dict(num_classes=100)
train_dataloader = dict(dataset=dict(data_root='data/cifar100'))
val_dataloader = dict(dataset=dict(data_root='data/cifar100'))
test_dataloader = dict(dataset=dict(data_root='data/cifar100'))
