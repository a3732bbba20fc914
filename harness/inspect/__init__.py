"""Looking at tables that stand somewhere: what they say, where, and what is odd about them.

The words that this package adds to those of `harness.paging`:

source    where tables come from: a layout, a saved case, a running QEMU, a core dump, a memory file
snapshot  what a source gives: CPU state and physical memory at one moment

`snapshot`  the CPU state and memory that all questions are asked of
`sources`   one module a kind of source
"""
