"""What only s390's processors have to say in reports.

`fault`  what accesses come to, and what would let them pass
`state`  the state in which tables are read, in words and as what JSON can hold
"""
