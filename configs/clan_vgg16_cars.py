# CLAN in two scales on VGG-16 with batch normalisation (Table 6); tests every epoch
_base_ = './clan_vgg16_cub.py'

model = dict(head=dict(num_classes=196))
data_preprocessor = dict(num_classes=196)
train_dataloader = dict(dataset=dict(data_root='data/cars'))
val_dataloader = dict(dataset=dict(data_root='data/cars'))
test_dataloader = dict(dataset=dict(data_root='data/cars'))
