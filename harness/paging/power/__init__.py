"""POWER: the formats of its radix trees (Power ISA 3.0, Book III, "Radix Tree Translation").

`formats`  trees of 4K and of 64K pages
"""
