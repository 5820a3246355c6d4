"""Which attention helps on a folder of images: all methods and seeds trained, tested, compared.

`command` is the whole of it, step by step. `plan` makes `cells` of what is asked, one training and
test each. `features` and `heads` are what a cell does on a frozen backbone, `training` what it does
to a whole one; `run_cell` is its process, and `jobs`, `local`, `cluster` and `display` run the
processes. `tuning` chooses rate and length on validation images. `statistics`, `calibration`,
`results`, `tables`, `plots` and `cost` make the answer of what is there.
"""
