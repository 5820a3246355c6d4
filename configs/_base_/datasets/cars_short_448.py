_base_ = './cub_short_448.py'

data_preprocessor = dict(num_classes=196)
train_dataloader = dict(dataset=dict(data_root='data/cars'))
val_dataloader = dict(dataset=dict(data_root='data/cars'))
test_dataloader = dict(dataset=dict(data_root='data/cars'))
