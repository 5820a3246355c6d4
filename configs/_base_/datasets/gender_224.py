# Adience, two genders (WARN, section 4.1): five folds, of which one is tested on. The paper's
# figure is the mean over options.fold=0 ... 4, set in all three data sets
_base_ = './cub_224.py'

data_preprocessor = dict(num_classes=2)
options = dict(label='gender', fold=0)
train_dataloader = dict(dataset=dict(data_root='data/adience', options=options))
val_dataloader = dict(dataset=dict(data_root='data/adience', options=options))
test_dataloader = dict(dataset=dict(data_root='data/adience', options=options))
