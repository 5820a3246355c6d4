# Stanford Cars as WARN has it (section 4.4): 224 x 224 patches
_base_ = './cub_224.py'

data_preprocessor = dict(num_classes=196)
train_dataloader = dict(dataset=dict(data_root='data/cars'))
val_dataloader = dict(dataset=dict(data_root='data/cars'))
test_dataloader = dict(dataset=dict(data_root='data/cars'))
