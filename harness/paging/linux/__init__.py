"""What Linux makes of page tables: its use of entries, and its old names for their levels.

`entries` is the dialect of x86-64 that a fork is told about, `folded` has pgd, p4d, pud, pmd and
pte, and `away` has what other architectures share: entries of pages that are away, and the fork.

Who knows the patch "Proof-of-concept: better(?) page-table manipulation API" (linux-mm, April
2018) finds its names here:

the patch                here                      what changed, and why
-----------------------  ------------------------  -----------------------------------------------
pt_ptr, ptp_t, PTP_INIT  table.Slot                a table and an index: a place is not a table
pt_val, ptv_t, get_ptv   value.Value, slots.value  knows its format beside its level
BITS_PER_PT, PTRS_PER_PT format.Level              a property of each level, never one constant
__pt_shift, __pt_index   Level.shift, Level.index
__ptv_flags              bits.attributes,          a leaf and a pointer keep their addresses in
                         bits.pointer_attributes   different bits, and PAT lies among those of a
                                                   large page's address
PT_TOP_LEVEL             Root.table.level          there is no level above the root's table
PT_SPLIT_LOCK_LVLS       lock.SPLIT_LEVELS
PT_ACCOUNT_LVLS          tree.COUNTED_LEVELS       tables of all levels are counted; Linux's count
                                                   is one of them
ptv_bottom               Value.bottom
ptv_size, ptv_mask       Value.size, Value.mask
ptv_addr_end             Value.clip                both ends included, so nothing wraps
ptv_none                 Value.none
ptv_present              Value.present             as the machine sees it; Linux.present calls
                                                   PROT_NONE pages present too, as Linux does
ptv_bad                  Value.bad                 what the machine finds malformed, at level 0 too,
                                                   not what differs from one kernel's usual bits
ptv_huge                 Value.huge                decoded at its level: PAT of a small page, the
                                                   same bit, makes no large one
ptv_devmap               entries.DEVMAP            a bit of Linux, so not one of every entry
ptv_swap                 Linux.decode              Swap is one of the things that an entry may say
                                                   when not present: PROT_NONE, migration, device,
                                                   poison and markers are others
ptv_leaf                 Value.leaf                pages only; a swap entry is none
ptv_pfn                  Value.frame               of pages too, where the patch had BUG()
ptp_init                 slots.root                asks for the address, since a format may have
                                                   several roots, and gives its entry, not a
                                                   pretended one above that stood for entry 0
ptp_convert              folded.Folded             all names take the same slot, so nothing is
                                                   converted, and level 3 is a p4d or a pgd as the
                                                   level count has it
ptp_next, ptp_prev       slots.following,          give a new slot, and none outside the table
                         slots.preceding
ptp_set, ptp_clear       slots.put, slots.clear    tell what is to be flushed
ptp_populate, ptp_alloc  slots.populate            all in one: a table is never a value without
                                                   flags, it is counted whatever its level, and
                                                   the loser of a race gives its table back
ptp_error                slots.describe            a sentence, for whoever wants to print it
ptp_clear_bad,           the same names in slots   a RuntimeWarning says what was cleared
ptp_none_or_clear_bad
ptp_page_vaddr           slots.table               a Table with its level; an error where there is
                                                   none, the root is no special case
ptp_walk                 slots.walk                gives a new slot, its argument stays as it is;
                                                   a level down is one less, in every format
ptp_walk_alloc           slots.walk_alloc          raises OutOfTables instead of returning a bool
ptp_lock_ptr, ptp_lock,  slots.lock, lock.held     for `with`; the order is documented and kept
ptp_unlock_unmap                                   across spaces
ptp_unmap                                          nothing is ever mapped to be read
ptp_alloc_one, ptp_free  TableAllocator            gives tables and takes them back, locks and all
mm_accout_pt             Tree.account              asked, not kept: it cannot go wrong
sync_global_pgds         sync.sync_roots           compares where entries lead, not whole entries:
                                                   the machine sets A in each on its own
copy_page_range,         copy.copy_range,          a failure ends the copy, is told and undone; a
copy_pt_range            copy.Copy                 page split meanwhile is copied in its parts;
                                                   resumed by the caller, step by step
copy_pt_leaf             copy.Dialect              for every level; Linux's is Linux.fork
"""
