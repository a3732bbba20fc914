"""s390: the formats of its region, segment and page tables (z/Architecture Principles of Operation,
chapter 3, "Dynamic Address Translation").

`formats`  the five levels, without and with the enhanced-DAT facilities
"""
