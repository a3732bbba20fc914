"""arm64: the formats of its translation tables, stage 1 of EL1&0 (Arm ARM, DDI 0487, chapter D8).

`formats`  granules of 4K, 16K and 64K, addresses of 48 and of 52 bits, LPA2
"""
