//! What can happen in a history, and how often it does.

use proptest::prelude::*;

use super::model::{Claim, DAY, Mood, PEOPLE, Slot, WORKSPACES};

/// One step. Most steps name the replica that is asked. If there is only one replica, it is always that one.
#[derive(Debug, Clone)]
pub enum Step {
    /// Time passes, and no replica looks at the clock.
    Wait {
        seconds: i64,
    },
    /// One replica, or all at once, announce everything that is due.
    Announce {
        on: usize,
    },
    AnnounceEverywhere,
    /// A caller sends a request to the vault.
    Ask {
        on: usize,
        act: Act,
    },
    /// A person in good standing at the provider, who grants every scope, connects.
    Connect {
        on: usize,
        slot: Slot,
        life: Life,
    },
    /// A person runs into a checkpoint, and a service reports the refusal; or the person passes it, and the vault
    /// validates.
    Stumbles {
        on: usize,
        slot: Slot,
    },
    Recovers {
        on: usize,
        slot: Slot,
    },
    /// Two acts for different people, and the announcement of deadlines, all at once on different replicas.
    Together {
        first: Act,
        second: Act,
    },
    /// Two replicas validate one connection at once.
    ValidateTwice {
        slot: Slot,
    },
    /// A process dies this many milliseconds after a request reached it.
    Die {
        on: usize,
        act: Act,
        after: u64,
    },
    /// A process shuts down, or dies in a power cut, and another takes its place.
    Restart {
        on: usize,
        cut: bool,
    },
    /// A job runs to its end. If all replicas start it at once, it must be one run.
    Sweep {
        everywhere: bool,
    },
    Renew {
        everywhere: bool,
    },
    Retention,
    /// Something changes at the provider.
    Outside {
        person: usize,
        event: Outside,
    },
    /// The provider moves the end of the token that a connection holds.
    MoveEnd {
        slot: Slot,
        days: i64,
    },
    Mood(Mood),
}

/// A request about one connection.
#[derive(Debug, Clone)]
pub enum Act {
    /// The person logs in and pastes the new token. A short-lived one lives 90 minutes.
    Paste {
        slot: Slot,
        life: Life,
    },
    /// The person pastes the last token again.
    PasteAgain {
        slot: Slot,
    },
    Validate {
        slot: Slot,
    },
    /// `success`: how many seconds ago the reporter last saw the token work.
    Report {
        slot: Slot,
        claim: Claim,
        success: Option<i64>,
    },
    Lengthen {
        slot: Slot,
    },
    Revoke {
        slot: Slot,
        at_provider: bool,
    },
}

impl Act {
    pub fn slot(&self) -> Slot {
        match self {
            Self::Paste { slot, .. }
            | Self::PasteAgain { slot }
            | Self::Validate { slot }
            | Self::Report { slot, .. }
            | Self::Lengthen { slot }
            | Self::Revoke { slot, .. } => *slot,
        }
    }
}

#[derive(Debug, Clone, Copy)]
pub enum Life {
    Short,
    Long { hours: i64 },
}

/// What people do, and what happens to them.
#[derive(Debug, Clone, Copy)]
pub enum Outside {
    /// All tokens so far die with this sub-code.
    Dies(u32),
    Checkpoint,
    Heals,
    LosesScope(&'static str),
    GetsScope(&'static str),
    LosesAccount(usize),
    GetsAccount(usize),
    /// Data access ended yesterday, or is good for 90 days again.
    AccessLapses,
    Returns,
}

fn slot() -> impl Strategy<Value = Slot> {
    (0..WORKSPACES, 0..PEOPLE)
}

fn life() -> impl Strategy<Value = Life> {
    prop_oneof![
        3 => Just(Life::Short),
        1 => (25..=6 * 24_i64).prop_map(|hours| Life::Long { hours }),
        2 => (6 * 24..=60 * 24_i64).prop_map(|hours| Life::Long { hours }),
    ]
}

fn connect() -> impl Strategy<Value = Step> {
    (0..2_usize, slot(), life()).prop_map(|(on, slot, life)| Step::Connect { on, slot, life })
}

fn act() -> impl Strategy<Value = Act> {
    let claim =
        prop_oneof![5 => Just(Claim::Dead), 1 => Just(Claim::DeadBefore), 1 => Just(Claim::Throttled)];
    let success = prop_oneof![2 => Just(None), 1 => (0..7_200_i64).prop_map(Some)];
    prop_oneof![
        4 => (slot(), life()).prop_map(|(slot, life)| Act::Paste { slot, life }),
        1 => slot().prop_map(|slot| Act::PasteAgain { slot }),
        3 => slot().prop_map(|slot| Act::Validate { slot }),
        3 => (slot(), claim, success).prop_map(|(slot, claim, success)| Act::Report { slot, claim, success }),
        1 => slot().prop_map(|slot| Act::Lengthen { slot }),
        1 => (slot(), any::<bool>()).prop_map(|(slot, at_provider)| Act::Revoke { slot, at_provider }),
    ]
}

fn seconds() -> impl Strategy<Value = i64> {
    prop_oneof![
        3 => 60..3_600_i64,
        3 => 3_600..DAY,
        6 => DAY..4 * DAY,
        4 => 4 * DAY..25 * DAY,
        1 => 25 * DAY..70 * DAY,
    ]
}

fn outside() -> impl Strategy<Value = Outside> {
    let scope = || prop_oneof![Just("ads_read"), Just("ads_management"), Just("business_management")];
    prop_oneof![
        3 => prop_oneof![Just(458_u32), Just(460), Just(467)].prop_map(Outside::Dies),
        2 => Just(Outside::Checkpoint),
        3 => Just(Outside::Heals),
        1 => scope().prop_map(Outside::LosesScope),
        2 => scope().prop_map(Outside::GetsScope),
        1 => (0..3_usize).prop_map(Outside::LosesAccount),
        1 => (0..3_usize).prop_map(Outside::GetsAccount),
        1 => Just(Outside::AccessLapses),
        1 => Just(Outside::Returns),
    ]
}

fn mood() -> impl Strategy<Value = Mood> {
    prop_oneof![
        2 => Just(Mood::SameDay),
        2 => Just(Mood::SameExpiry),
        2 => Just(Mood::Extends),
        1 => Just(Mood::SameString),
        1 => Just(Mood::BecomesNever),
        1 => Just(Mood::Shortens),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let on = || 0..2_usize;
    prop_oneof![
        18 => seconds().prop_map(|seconds| Step::Wait { seconds }),
        8 => on().prop_map(|on| Step::Announce { on }),
        4 => Just(Step::AnnounceEverywhere),
        10 => connect(),
        20 => (on(), act()).prop_map(|(on, act)| Step::Ask { on, act }),
        5 => (on(), slot()).prop_map(|(on, slot)| Step::Stumbles { on, slot }),
        6 => (on(), slot()).prop_map(|(on, slot)| Step::Recovers { on, slot }),
        6 => (act(), act()).prop_map(|(first, second)| Step::Together { first, second }),
        1 => slot().prop_map(|slot| Step::ValidateTwice { slot }),
        2 => (on(), act(), 0..40_u64).prop_map(|(on, act, after)| Step::Die { on, act, after }),
        2 => (on(), any::<bool>()).prop_map(|(on, cut)| Step::Restart { on, cut }),
        5 => any::<bool>().prop_map(|everywhere| Step::Sweep { everywhere }),
        8 => any::<bool>().prop_map(|everywhere| Step::Renew { everywhere }),
        1 => Just(Step::Retention),
        12 => (0..PEOPLE, outside()).prop_map(|(person, event)| Step::Outside { person, event }),
        2 => (slot(), 2..40_i64).prop_map(|(slot, days)| Step::MoveEnd { slot, days }),
        4 => mood().prop_map(Step::Mood),
    ]
}

/// Generates a history. It begins with people who connect, so that the later steps have connections to act on.
pub fn history() -> impl Strategy<Value = Vec<Step>> {
    use proptest::collection::vec;
    (vec(connect(), 3..6), vec(step(), 25..50)).prop_map(|(births, steps)| [births, steps].concat())
}
