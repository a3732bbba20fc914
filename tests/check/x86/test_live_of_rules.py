"""Tests of `test_live` and `test_live_foreign` with a guest that is the rules, and that keeps
translations, and code of large pages, as TCG does: those of what is asked of a guest, and of what
is made of its answers."""

from __future__ import annotations

from typing import Any

import pytest

from harness.check.x86.fixtures import new_space
from harness.check.x86.space import GuestSpace
from harness.machine.x86.guest import Guest
from tests.check.x86.by_rules import DEPARTS
from tests.check.x86.machines import KEEPS_CODE, Keeping
from tests.check.x86.test_live import (  # noqa: F401
    keeping,
    test_a_bit_that_the_reference_forgets_is_found,
    test_a_collapse_leaves_nothing_of_the_small_pages,
    test_a_fork_that_is_not_flushed_lets_the_parent_write,
    test_a_machine_that_keeps_nothing_is_no_proof_that_nothing_is_missing,
    test_a_page_beside_what_is_probed_is_left_out_where_it_leads_to_no_frame,
    test_a_table_that_is_shared_is_flushed_wherever_it_can_be_reached,
    test_an_entry_that_the_guest_does_not_leave_as_it_must_be_is_found,
    test_code_that_tcg_keeps_of_a_large_page_is_a_known_quirk,
    test_each_address_of_a_flush_is_needed,
    test_nothing_else_is_taken_for_code_that_is_kept,
    test_of_an_address_that_is_not_canonical_no_entries_are_told,
    test_the_window_is_not_probed_and_that_is_said,
    test_under_isolation_each_root_reaches_its_own_only,
    test_what_cannot_be_asked_is_a_sentence,
    test_what_the_machine_dropped_by_itself_is_tried_again,
    test_where_every_flush_is_done_once_is_enough,
)
from tests.check.x86.test_live_foreign import (  # noqa: F401
    frames,
    mapper,
    test_a_flush_that_is_missing_shows,
    test_a_load_of_cr3_flushes_what_is_not_global,
    test_a_new_table_and_what_is_stored_there_later_is_noted,
    test_a_page_that_becomes_a_table_and_a_table_that_becomes_a_page,
    test_a_store_that_no_one_announced_is_refused,
    test_a_table_that_is_mapped_is_not_probed,
    test_a_table_that_was_never_a_page_becomes_one,
    test_after_an_error_in_the_block_stores_are_no_longer_announced,
    test_flushes_can_be_handed_over_afterwards,
    test_operations_of_the_library_may_stand_between,
    test_the_entry_by_which_the_stub_runs_is_not_to_be_overwritten,
    test_what_is_too_much_for_one_run_leaves_the_rest_usable,
    test_what_it_stores_is_what_the_guest_stores,
    test_what_was_stored_before_an_error_in_the_block_is_announced,
)

QEMU = "tcg", (7, 2, 22)


@pytest.fixture
def guest() -> Any:
    return Keeping(*QEMU, {*DEPARTS[QEMU], KEEPS_CODE}, ram_bytes=256 << 20)


@pytest.fixture
def space(guest: Guest) -> GuestSpace:
    return new_space(guest, 4)


@pytest.fixture
def at() -> int:
    """Where the pages begin that `test_live` furnishes."""
    return (1 << 47) - (16 << 20)


@pytest.fixture
def pages() -> int:
    """How many pages of each part are probed."""
    return 4
