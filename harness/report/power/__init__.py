"""What commands print of POWER alone.

`fault`  what accesses come to, and what would let them pass
`state`  the state of a processor
"""
