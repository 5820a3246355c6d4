# Stanford Dogs (WARN, section 4.1): its fixed split, whole images
_base_ = './cub_224.py'

data_preprocessor = dict(num_classes=120)
train_dataloader = dict(dataset=dict(data_root='data/dogs'))
val_dataloader = dict(dataset=dict(data_root='data/dogs'))
test_dataloader = dict(dataset=dict(data_root='data/dogs'))
