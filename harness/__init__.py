"""Page tables, and the proof that a machine reads them as their author means them.

`paging` is the library: what entries mean and how to change them. `machine` runs a guest. `check`
asks both the same question and compares. `report`, the command `pagetable` and the pytest plugin
stand on top; `architectures` lists those that there are. The words that all of them use are
explained in `harness.paging`.
"""
