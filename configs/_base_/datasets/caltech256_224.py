# Caltech-256 without its last category; 25 random images a category are for testing. Training takes
# 60 of the others (a few categories have fewer left) or, by --cfg-options,
#   train_dataloader.dataset.train_per_class=30
# of them, on the same test images. split_seed gives another split; set it in all three loaders.
# ICASC, section 4.1, says nothing of crops, mirrors and batches.
_base_ = './short_edge_224.py'

data_preprocessor = dict(num_classes=256)
train_dataloader = dict(dataset=dict(data_root='data/caltech256', train_per_class=60))
val_dataloader = dict(dataset=dict(data_root='data/caltech256'))
test_dataloader = dict(dataset=dict(data_root='data/caltech256'))
val_evaluator = dict(type='Accuracy', topk=(1, 5))
test_evaluator = val_evaluator
