# att2, Table 2: CUB at 32 x 32 through the networks made for CIFAR ("initialised with the weights
# learned for CIFAR-100": --pretrained FILE)
_base_ = './cifar_flip.py'

data_preprocessor = dict(num_classes=200)
train_dataloader = dict(dataset=dict(data_root='data/cub'))
val_dataloader = dict(dataset=dict(data_root='data/cub'))
test_dataloader = dict(dataset=dict(data_root='data/cub'))
