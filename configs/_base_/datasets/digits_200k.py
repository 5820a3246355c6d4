# WARN, section 4.2: 200,000 images to train on, 100,000 each to validate and to test, of MNIST's
# digits; the three are made of different digits
_base_ = './digits.py'

train_dataloader = dict(dataset=dict(data_root='data/mnist', num_images=200000))
val_dataloader = dict(dataset=dict(data_root='data/mnist', num_images=100000))
test_dataloader = dict(dataset=dict(data_root='data/mnist', num_images=100000))
