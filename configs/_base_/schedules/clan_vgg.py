# CLAN, section 4.1, VGG-16: the rate times 0.1 every 30 epochs
_base_ = './clan.py'

param_scheduler = dict(type='StepLR', by_epoch=True, step_size=30, gamma=0.1)
