# ICASC, section 4.2: SGD, batch 10, rate 0.001 times 0.1 after epochs 30 and 60 of 90. It gives no
# momentum and weight decay here; these are those of its ImageNet networks.
_base_ = './imagenet_resnet.py'

optim_wrapper = dict(optimizer=dict(lr=0.001))
auto_scale_lr = dict(base_batch_size=10)
