_base_ = './fine_grained_448.py'

data_preprocessor = dict(num_classes=100)
train_dataloader = dict(dataset=dict(data_root='data/aircraft'))
val_dataloader = dict(dataset=dict(data_root='data/aircraft'))
test_dataloader = dict(dataset=dict(data_root='data/aircraft'))
