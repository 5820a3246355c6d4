# WARN, section 4.2: 200 epochs, the rate 0.1 divided by 10 after epoch 60
_base_ = './digits.py'

param_scheduler = dict(milestones=[60])
train_cfg = dict(max_epochs=200)
