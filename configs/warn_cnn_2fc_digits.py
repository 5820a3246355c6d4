# WARN, section 4.2, Figure 4 in the long form, its best setting: AD = 4, AW = 4
_base_ = './gap_cnn_2fc_digits.py'

model = dict(head=dict(type='WARNHead', taps=4, heads=4))
