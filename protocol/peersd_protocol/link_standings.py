"""What a device makes of a group and the device at the other end of a link, by the acts that it knows (SPEC: O-6)."""

from __future__ import annotations

from dataclasses import dataclass

from peersd_protocol.lane_effects import Standing


@dataclass(frozen=True, slots=True)
class Known:
    """What the acts known here say of a group and the two devices of a link.

    Attributes:
        is_own: whether this device is a live one of a member.
        is_remote: whether the remote device is one.
        was_remote: whether the remote device is none and was one, or its user was admitted in vain.
        is_empty: whether nothing is known of the members yet.
        is_same_user: whether the remote device is a live one of this device's user, be that a member or not.
        is_untold: whether this device's user has left and no member's device has heard of it.
        has_asked: whether the remote device has opened the group on this link.
    """

    is_own: bool
    is_remote: bool
    was_remote: bool
    is_empty: bool
    is_same_user: bool
    is_untold: bool
    has_asked: bool

    @property
    def may_be_told(self) -> bool:
        """Whether the remote device may be told what this one holds; else it is asked at most, by who redeems a ticket there."""
        return self.is_remote or self.is_same_user

    @property
    def standing(self) -> Standing:
        """For the lanes.

        Who is no member, and is asked for the group by one who takes it for a member, asks back: the other may have heard of an
        admission, or not of the removal. Members are asked, and the user's other devices; who knows nothing yet asks anybody.
        """
        if self.is_own:
            return Standing.MEMBER if self.is_remote else Standing.FORMER if self.was_remote else Standing.NONE
        if self.is_untold and self.is_remote:
            return Standing.LEAVING
        asks = self.has_asked and (self.is_empty or self.is_same_user or self.is_remote)
        if asks:
            return Standing.LEAVING
        return Standing.OUT if self.is_remote else Standing.NONE
