//! Histories that are kept as steps: situations that chance rarely produces, and histories that found a mistake.

use super::model::{Claim, DAY, Mood};
use super::steps::Step::{
    Announce, AnnounceEverywhere, Ask, Connect, MoveEnd, Outside, Recovers, Renew, Restart, Retention,
    Stumbles, Sweep, Wait,
};
use super::steps::{Act, Life, Outside as Event, Step};

const ANA: (usize, usize) = (0, 0);
const ANA_ELSEWHERE: (usize, usize) = (1, 0);
const BEN: (usize, usize) = (0, 1);

/// Each history, with a description.
pub fn histories() -> [(&'static str, Vec<Step>); 7] {
    let days = |days: i64| Wait { seconds: days * DAY };
    let connect = |slot, days: i64| Connect { on: 0, slot, life: Life::Long { hours: days * 24 } };
    let ask = |act| Ask { on: 1, act };
    [
        (
            "each warning in its turn, then the end, by whichever replica looks first",
            vec![
                connect(ANA, 20),
                days(13),
                AnnounceEverywhere,
                days(4),
                Announce { on: 1 },
                Announce { on: 0 },
                days(2),
                Restart { on: 0, cut: true },
                AnnounceEverywhere,
                days(1),
                AnnounceEverywhere,
                AnnounceEverywhere,
                connect(ANA, 30),
            ],
        ),
        (
            "a healed token that dies again is announced again, and so is its warning",
            vec![
                connect(ANA, 5),
                connect(ANA_ELSEWHERE, 40),
                Stumbles { on: 0, slot: ANA },
                Announce { on: 0 },
                Recovers { on: 1, slot: ANA },
                Stumbles { on: 1, slot: ANA },
                Stumbles { on: 0, slot: ANA },
                Recovers { on: 0, slot: ANA },
                Sweep { everywhere: true },
                Stumbles { on: 0, slot: ANA_ELSEWHERE },
                days(6),
                AnnounceEverywhere,
                Outside { person: 0, event: Event::Heals },
                Sweep { everywhere: false },
            ],
        ),
        (
            "data access has an end of its own",
            vec![
                connect(ANA, 60),
                days(58),
                connect(ANA, 60),
                days(26),
                AnnounceEverywhere,
                days(4),
                AnnounceEverywhere,
                days(3),
                AnnounceEverywhere,
                ask(Act::Validate { slot: ANA }),
                Outside { person: 0, event: Event::Returns },
                ask(Act::Validate { slot: ANA }),
                Outside { person: 0, event: Event::AccessLapses },
                Sweep { everywhere: true },
            ],
        ),
        (
            "at the ceiling a person is asked once; a token that may live on is renewed",
            vec![
                Step::Mood(Mood::SameExpiry),
                connect(ANA, 60),
                connect(BEN, 60),
                days(48),
                Renew { everywhere: true },
                days(3),
                Renew { everywhere: true },
                Step::Mood(Mood::Extends),
                days(4),
                Renew { everywhere: true },
                Step::Mood(Mood::Shortens),
                days(50),
                Renew { everywhere: true },
            ],
        ),
        (
            "ends that move by themselves void warnings, and bring a dead token back",
            vec![
                connect(ANA, 4),
                MoveEnd { slot: ANA, days: 30 },
                ask(Act::Validate { slot: ANA }),
                MoveEnd { slot: ANA, days: 2 },
                Sweep { everywhere: true },
                MoveEnd { slot: ANA, days: 10 },
                days(3),
                AnnounceEverywhere,
                ask(Act::Validate { slot: ANA }),
            ],
        ),
        (
            "scopes and ad accounts that go are missed until they come back",
            vec![
                connect(ANA, 60),
                Outside { person: 0, event: Event::LosesScope("business_management") },
                Outside { person: 0, event: Event::LosesAccount(0) },
                ask(Act::Validate { slot: ANA }),
                Outside { person: 0, event: Event::LosesScope("ads_management") },
                Sweep { everywhere: true },
                ask(Act::Paste { slot: ANA, life: Life::Short }),
                Outside { person: 0, event: Event::GetsAccount(0) },
                Outside { person: 0, event: Event::GetsAccount(2) },
                Sweep { everywhere: false },
                Outside { person: 0, event: Event::GetsScope("ads_management") },
                ask(Act::Validate { slot: ANA }),
                connect(ANA, 60),
            ],
        ),
        (
            "what retention deletes was seen, and what is revoked can be connected again",
            vec![
                connect(ANA, 60),
                connect(ANA_ELSEWHERE, 30),
                ask(Act::Revoke { slot: ANA, at_provider: true }),
                ask(Act::Report { slot: ANA_ELSEWHERE, claim: Claim::Dead, success: Some(60) }),
                days(60),
                connect(ANA, 60),
                days(40),
                Retention,
                Restart { on: 0, cut: false },
                Restart { on: 1, cut: true },
                connect(ANA_ELSEWHERE, 60),
                days(200),
                AnnounceEverywhere,
                Retention,
            ],
        ),
    ]
}
