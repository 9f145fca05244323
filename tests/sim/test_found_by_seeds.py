"""Seeds that found something wrong in the product, each with what it was. What mended it has a test beside the code as well.

A few found a wrong rule of the simulator's own, and say so.
"""

from __future__ import annotations

import pytest

from peersd.testing.simulator import run_seed


@pytest.mark.sim
def test_what_waits_for_an_act_that_ended_as_it_came_does_not_wait_for_good() -> None:
    """An act that the message which brought it also ended was told neither as held nor as void: runs that waited for it stayed
    parked, and were asked for every five seconds for ever (tests/store/test_void_on_arrival.py)."""
    assert " equal: " in run_seed(106).trace.lines[-1]


@pytest.mark.sim
@pytest.mark.parametrize("seed", [2261, 3045, 4196])
def test_who_sent_what_becomes_void_is_not_taken_for_good_to_hold_it(seed: int) -> None:
    """Who sends a run was taken to hold it. Where it was void at the sender already, and became so at the receiver, the receiver
    waited for ever for the sender to say that it held it no more (tests/protocol/test_replication_void_ends.py)."""
    assert " equal: " in run_seed(seed).trace.lines[-1]


@pytest.mark.sim
def test_what_was_void_as_it_came_and_counts_by_what_came_with_it_is_told_to_all() -> None:
    """Whoever had the log already was sent its part that was never void, and not told of the rest: it took the sender for good to
    lack that (tests/protocol/test_replication_void_ends.py)."""
    assert " equal: " in run_seed(20367).trace.lines[-1]


@pytest.mark.sim
def test_who_comes_with_a_ticket_and_shares_another_group_is_let_in_though_there_is_no_room() -> None:
    """A full device took strangers with tickets beside its links, and refused those with whom it shared another group (L-34)."""
    assert " equal: " in run_seed(20517).trace.lines[-1]


@pytest.mark.sim
@pytest.mark.parametrize("seed", [20800, 21039])
def test_logs_that_rest_on_each_other_and_are_asked_of_two_devices_arrive(seed: int) -> None:
    """Entries of one log went into one run as they lay, so two writers' logs each waited for an entry amid the other, until both
    were asked of one device after seconds (tests/store/test_interleaved_logs.py)."""
    assert " equal: " in run_seed(seed).trace.lines[-1]


@pytest.mark.sim
def test_a_schema_act_that_only_a_void_act_names_is_in_the_past_of_what_is_written_next() -> None:
    """An act that was void and held for a cut took what it named from the heads: an honest device wrote rows of a table that was
    not in their past, and was refused for it (tests/store/test_cuts_on_forks.py)."""
    assert " equal: " in run_seed(21016).trace.lines[-1]


@pytest.mark.sim
def test_who_came_in_by_another_device_sends_nothing_to_a_former_member_at_which_it_redeemed_too() -> None:
    """The channel of a redemption stayed open whatever was known of who admitted (tests/protocol/test_lanes.py)."""
    assert " equal: " in run_seed(21400).trace.lines[-1]


@pytest.mark.sim
def test_what_was_asked_for_and_has_become_void_where_it_was_asked_is_not_waited_for() -> None:
    """Whoever could not serve a WANT said nothing, so it was waited for as long as other logs came, and five seconds more
    (tests/protocol/test_replication_asking.py)."""
    assert " equal: " in run_seed(21695).trace.lines[-1]


@pytest.mark.sim
def test_what_became_void_after_it_came_and_counts_again_is_known_to_be_held_by_who_sent_it() -> None:
    """Whoever sent it took in what ended and what restored it together, so it had nothing to tell, and was taken for good to lack
    it (tests/protocol/test_replication_void_ends.py)."""
    assert " equal: " in run_seed(30244).trace.lines[-1]


@pytest.mark.sim
def test_members_that_do_not_know_where_others_are_meet_them_though_all_have_their_links() -> None:
    """Who lost the address of one it had let in left it out of its ring and refused it for others; so did its neighbours, to whom
    it could not tell the address: two parts, each with as many links as it may have (L-34)."""
    assert " equal: " in run_seed(30421).trace.lines[-1]


@pytest.mark.sim
def test_who_was_away_is_let_in_by_its_neighbours_though_their_links_are_new() -> None:
    """Who dialled a neighbour that had not answered before ended the link itself, since none of its own was old enough to give
    way: the next try came with the back-off (L-31)."""
    assert " equal: " in run_seed(30429).trace.lines[-1]


@pytest.mark.sim
def test_two_of_whom_one_is_no_member_to_the_other_come_to_agree_with_nobody_between_them() -> None:
    """Who was put out by an act that had fallen elsewhere was told why, knew better, and was not heard: the group was in two
    parts for good (tests/store/test_pleas.py)."""
    lines = run_seed(21747).trace.lines
    assert " equal: " in lines[-1]
    assert any(" pleads with " in line for line in lines)


@pytest.mark.sim
@pytest.mark.parametrize("seed", [20284, 2845351374])
def test_a_leave_is_heard_by_who_came_after_all_had_left_whom_the_leaver_knew(seed: int) -> None:
    """The leaver told who had left already, or did not know who asked it: it was a member for good to who came meanwhile."""
    lines = run_seed(seed).trace.lines
    assert " equal: " in lines[-1]
    assert any(" pleads with " in line for line in lines)


@pytest.mark.sim
def test_who_is_a_member_by_acts_that_fell_hears_why_they_fell() -> None:
    """Whoever was admitted by somebody who had been removed apart was told of its own removal, which it knew, or refused as a
    stranger, and took itself for a member for good (tests/store/test_pleas.py)."""
    assert " equal: " in run_seed(116).trace.lines[-1]


@pytest.mark.sim
def test_what_came_behind_an_entry_without_its_body_is_known_to_be_held_by_who_sent_it() -> None:
    """The body came from another device, and nobody told that who had sent what follows it holds that: that was waited for, for
    good (tests/protocol/test_replication_void_ends.py)."""
    assert " equal: " in run_seed(32498).trace.lines[-1]


@pytest.mark.sim
def test_acts_that_were_held_for_what_has_fallen_are_told_of_no_more() -> None:
    """One that was void and held kept what it names, while who never had it did not hold that: their vectors differed for good
    (tests/store/test_standing_of_entries.py)."""
    assert " equal: " in run_seed(32753).trace.lines[-1]


@pytest.mark.sim
def test_who_redeems_at_a_device_of_a_user_who_has_left_by_another_sends_it_nothing() -> None:
    """It heard of the leave by a plea while it redeemed; the device that let it in had not, and a session ran (SPEC O-6,
    tests/protocol/test_lanes.py)."""
    assert " equal: " in run_seed(37283).trace.lines[-1]


@pytest.mark.sim
def test_a_leave_that_only_a_removed_member_had_heard_is_told_by_it_when_it_hears_of_its_removal() -> None:
    """The leaver told one that had been removed and did not know it: it was a member for good to who had removed that one
    (tests/store/test_pleas.py, tests/protocol/test_lanes.py)."""
    assert " equal: " in run_seed(34198).trace.lines[-1]


@pytest.mark.sim
def test_what_its_sender_holds_no_more_is_not_parked_for_good() -> None:
    """Runs that wait for entries which are void at all others stayed parked, and were asked after for ever, though both sides
    held the same (tests/protocol/test_replication_parking.py)."""
    assert " equal: " in run_seed(32834).trace.lines[-1]


@pytest.mark.sim
def test_what_was_written_on_top_of_entries_that_lack_their_bodies_now_reaches_everybody() -> None:
    """Those were void when they came, and count again: nobody was told of them, so what rests on them was parked for good
    wherever they had never been (tests/store/test_missing_bodies.py)."""
    assert " equal: " in run_seed(36057).trace.lines[-1]


@pytest.mark.sim
def test_a_second_device_that_knows_of_nobody_is_dialled_by_its_neighbour_though_the_links_there_are_young() -> None:
    """A full device let such a neighbour in, and did not dial it before a link was old enough to give way (L-31)."""
    assert " equal: " in run_seed(35351).trace.lines[-1]


@pytest.mark.sim
def test_who_was_admitted_and_whose_ticket_names_nobody_who_knows_itself_a_member_is_not_waited_for() -> None:
    """A rule of the simulator's: it waited for who redeems a ticket at one that is a member by acts which that one never got, and
    that lets nobody in."""
    assert " equal: " in run_seed(36797).trace.lines[-1]


@pytest.mark.sim
def test_who_knows_itself_removed_is_not_waited_for_to_pass_on_what_nobody_tells_it() -> None:
    """A rule of the simulator's: two members that do not know where the other is, and are both linked to one that dropped its own
    device, were to hear of each other's acts by it. Who knows of that tells it its farewell and nothing that came after (O-6)."""
    assert " equal: " in run_seed(45793).trace.lines[-1]


@pytest.mark.sim
def test_a_leave_is_told_on_though_who_is_told_hears_first_that_it_was_dropped_before() -> None:
    """A device had been dropped and taken back by a promotion before the leave. Of what the leaver sent it took in the drop, and
    closed the channel; that passed for having heard of the leave, and a group without any other member was left to nobody
    (tests/protocol/test_lanes.py)."""
    assert " equal: " in run_seed(45103).trace.lines[-1]


@pytest.mark.sim
def test_who_learns_while_it_redeems_that_it_is_a_member_already_keeps_the_group() -> None:
    """A user was let in and lost the link before it heard so. Its next ticket was void; while that was refused, a member's device
    told it all, and the group was thrown away again: every try ended so, for ever (tests/node/test_joining.py)."""
    assert " equal: " in run_seed(46258).trace.lines[-1]


@pytest.mark.sim
def test_a_leave_that_only_who_had_left_before_has_heard_is_told_by_it() -> None:
    """Who leaves pleads with those it knows, and the only one had left as well: that one took the leave in and said nothing, and
    a member that was linked to it kept a member for good that it does not know how to reach (tests/protocol/test_lanes.py)."""
    assert " equal: " in run_seed(60183).trace.lines[-1]


@pytest.mark.sim
def test_a_run_that_waits_anew_does_not_hide_one_behind_it_which_another_device_brings_first() -> None:
    """A run that waited again took the place of a later one in what its sender was known to have brought: both sides counted as
    equal too early, and the later one was dropped. And who had sent what another device brought first was not taken to hold it,
    which it never said (tests/protocol/test_replication_parking.py)."""
    assert " equal: " in run_seed(64942).trace.lines[-1]


@pytest.mark.sim
def test_a_device_that_did_not_answer_is_tried_again_though_its_user_is_at_hand_by_another() -> None:
    """It had dropped all that it was linked to, and left, which only the one that did not dial it again had to be told
    (tests/protocol/test_mesh.py)."""
    assert " equal: " in run_seed(65362).trace.lines[-1]


@pytest.mark.sim
def test_what_became_void_between_the_digests_and_the_session_is_told_as_held_no_more() -> None:
    """Only logs of which something was left were announced then: the other side took for good to be held what was not
    (tests/protocol/test_replication.py)."""
    assert " equal: " in run_seed(66245).trace.lines[-1]


@pytest.mark.sim
def test_a_handshake_that_ends_after_its_process_did_does_not_look_like_a_copied_key() -> None:
    """The last message of a handshake came when its sender had died and its successor was linked: that raised an alarm
    (tests/protocol/test_linktable.py)."""
    assert " equal: " in run_seed(67727).trace.lines[-1]


@pytest.mark.sim
def test_who_is_not_alone_and_was_told_of_in_no_beacon_is_let_in_where_all_links_are_taken() -> None:
    """A device knew where one of the others was, and was linked to a fourth that knew nobody else. The one it knew had no link to
    spare, and took it for somebody whom its neighbours on the ring would dial; but nobody had told these where it was (L-34)."""
    assert " equal: " in run_seed(68409).trace.lines[-1]
