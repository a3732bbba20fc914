"""What only x86's CPU states have to say in reports.

`fault`  what accesses come to, what would let them pass, and page faults that were seen
`flushes`  what flushes are called
`state`  the state in which tables are read, in words and as what JSON can hold
"""
