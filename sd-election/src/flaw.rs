//! Mistakes that elections are known to be built with, to be put into this very code: the simulation has to notice each of them.
//!
//! Where one is possible, the code asks [`flawed`]. Without the feature `simulation` that is a constant, and nothing of it is
//! compiled.

macro_rules! flaws {
    ($($(#[doc = $text:literal])+ $name:ident,)+) => {
        /// A mistake that the simulation can put in.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        #[cfg_attr(
            not(feature = "simulation"),
            expect(unreachable_pub, dead_code, reason = "public and made with the feature only")
        )]
        #[non_exhaustive]
        pub enum Flaw {
            $($(#[doc = $text])+ $name,)+
        }

        #[cfg(feature = "simulation")]
        impl Flaw {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// What is wrong, in a sentence.
            pub fn description(self) -> &'static str {
                match self {
                    $(Self::$name => concat!($($text),+).trim_ascii_start(),)+
                }
            }
        }
    };
}

flaws! {
    /// The deadline is counted from when a confirmation was answered, not from when it was sent.
    DeadlineFromReply,
    /// The time-to-live that was asked for is relied on, not the one that was granted.
    TtlFromConfiguration,
    /// Nothing is subtracted for clocks that do not run alike.
    ClockErrorIgnored,
    /// Nothing is subtracted for a server that ends leases early.
    EarlyExpiryIgnored,
    /// Nothing is left for the application to stop in.
    StopMarginIgnored,
    /// A confirmation that only counts from an earlier send is taken to count from itself.
    EarlierSendIgnored,
    /// A confirmation is taken to prove the one before it, however shortly after that it was sent.
    SpacingIgnored,
    /// A term begins without a fresh confirmation of the entry.
    TermUnconfirmed,
    /// A term begins at once after one whose leader may still believe.
    TakeoverDelayIgnored,
    /// A candidate waits only for its own takeover delay, though the leader before may believe for longer.
    PredecessorTtlIgnored,
    /// A candidate that leaves within the takeover delay is taken for a leader that has stopped.
    GraceTakenForTerm,
    /// A confirmation that failed is taken for one that succeeded.
    FailureTakenForSuccess,
    /// A failed confirmation does not end a term whose owner wants that.
    StepDownIgnored,
    /// An application that makes no progress keeps its term.
    ProgressIgnored,
    /// Belief is a flag that the driver takes back, instead of a deadline that is compared with a clock.
    FlagInsteadOfClock,
    /// An answer after the deadline brings the term back.
    LateAnswerRevives,
    /// The term comes back although a reader saw the deadline pass.
    SeenExpiryForgotten,
    /// A candidate that waits does not notice that its entry is gone.
    LossIgnoredWhileWaiting,
    /// A leader is not told that its entry is gone.
    LossIgnoredWhileLeading,
    /// A candidate is told that it is the first when the entry before its own is deleted, and only then that its own was deleted before.
    OwnDeletionLate,
    /// A candidate that lost its entry while it waited does not join again.
    LossEndsCampaign,
    /// A missing answer is waited for without a limit.
    AnswerAwaitedForEver,
    /// The entry is left at the deadline, while the application may go on until the hand-over.
    LeftBeforeHandOver,
    /// A registry that is closed gives the work no time to stop.
    ClosedAtOnce,
    /// The entry is left before belief ends.
    BeliefWhileLeaving,
    /// A join of unknown outcome is not left.
    UnknownJoinNotLeft,
    /// A leave that failed is not tried again.
    LeaveNotRepeated,
    /// A cancelled campaign does not leave.
    CancelledWithoutLeaving,
    /// A campaign that was dropped goes on.
    CancelIgnored,
    /// A leadership that was dropped is renewed for ever.
    DropIgnored,
    /// The end of a term is told twice.
    EndToldTwice,
    /// The end of a term is not told.
    EndNotTold,
    /// A term has the token of an earlier one.
    EarlierToken,
    /// Work goes on after the hand-over of its term.
    WorkNotStopped,
    /// A store admits writes of leaders of the past.
    FenceOpen,
    /// An observer does not come back when its feed has ended.
    ObserverGivesUp,
}

/// `right`, or `wrong` if this mistake is to be made.
pub(crate) fn unless<T>(flaw: Flaw, right: T, wrong: T) -> T {
    if flawed(flaw) { wrong } else { right }
}

/// Whether this mistake is to be made.
#[cfg(not(feature = "simulation"))]
pub(crate) const fn flawed(_: Flaw) -> bool {
    false
}

#[cfg(feature = "simulation")]
pub(crate) use self::put_in::{flawed, put_in};

#[cfg(feature = "simulation")]
mod put_in {
    use std::cell::Cell;

    use super::Flaw;

    thread_local! {
        static FLAW: Cell<Option<Flaw>> = const { Cell::new(None) };
    }

    /// Whether this mistake is to be made.
    pub(crate) fn flawed(flaw: Flaw) -> bool {
        FLAW.get() == Some(flaw)
    }

    /// Has this thread make a mistake until the guard is dropped.
    pub(crate) fn put_in(flaw: Flaw) -> Flawed {
        FLAW.set(Some(flaw));
        Flawed
    }

    #[must_use]
    #[derive(Debug)]
    pub(crate) struct Flawed;

    impl Drop for Flawed {
        fn drop(&mut self) {
            FLAW.set(None);
        }
    }
}
