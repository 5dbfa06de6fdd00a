//! Weighs the token that the provider offers against the one held. Pure: what the provider said of both decides.

use std::ops::ControlFlow;
use std::sync::Arc;

use super::save::{ExchangeOutcome, movement};
use crate::model::{Connection, Policy, Refusal, RefusalKind, Secret, Timestamp};
use crate::provider::Inspected;
use crate::vault::token::inspection::is_death;
use crate::vault::token::store::save::{is_other_subject, is_untold_subject, lost_scopes};

/// What the offered token is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::vault) enum Aim {
    /// It must live longer than the one held.
    Lengthen,
    /// It was read again, as page tokens are: it only has to work.
    Refresh,
}

/// What is wrong with an offered token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::vault) enum Drawback {
    /// It does not live longer than the one held.
    AtCeiling,
    /// It ends earlier.
    Shortened,
    /// It lacks these scopes of the one held.
    FewerScopes(Vec<String>),
    /// It was issued for another subject or app.
    Foreign,
    /// The provider refuses it.
    Dead,
    /// The provider offered none: it refuses to exchange the one held.
    Refused,
}

impl Drawback {
    /// What a caller who asked for the exchange is told happened to the expiry, if that alone is wrong.
    pub(in crate::vault) const fn outcome(&self) -> Option<ExchangeOutcome> {
        match self {
            Self::AtCeiling => Some(ExchangeOutcome::AtCeiling),
            Self::Shortened => Some(ExchangeOutcome::Shortened),
            Self::FewerScopes(_) | Self::Foreign | Self::Dead | Self::Refused => None,
        }
    }
}

/// A token that works, and what the provider says of it.
#[derive(Debug, Clone)]
pub(super) struct Living {
    pub(super) secret: Arc<Secret>,
    pub(super) inspected: Inspected,
}

/// What the provider offers in place of the token held.
#[derive(Debug)]
pub(super) enum Offer {
    /// A token that is better in every way that counts.
    Better(Living),
    /// A token that works for the same subject and app, and has this drawback.
    Lesser(Living, Drawback),
    /// Nothing that could ever take its place.
    Useless(Drawback),
    /// A token about which the provider says nothing now.
    Unknown(Refusal),
}

impl Offer {
    /// `same`: it is the token held, under which nothing can be lost.
    pub(super) fn of(
        Living { secret, inspected }: Living,
        held: &Connection,
        same: bool,
        aim: Aim,
        now: Timestamp,
        policy: &Policy,
    ) -> Self {
        if is_untold_subject(held, &inspected) {
            let kind = RefusalKind::Transient { retry_after: None };
            return Self::Unknown(Refusal::new(kind, "the inspection does not tell whose the token is"));
        }
        if is_other_subject(held, &inspected) {
            return Self::Useless(Drawback::Foreign);
        }
        if inspected.facts.expiry.at().is_some_and(|end| end <= now) {
            return Self::Useless(Drawback::Dead);
        }
        // A dead token has lost its scopes anyway.
        let counts = !same && held.status(now, policy).is_usable();
        let lost = if counts { lost_scopes(held, &inspected) } else { Vec::new() };
        let movement = movement(inspected.facts.expiry, held.facts.expiry);
        let living = Living { secret, inspected };
        if !lost.is_empty() {
            return Self::Lesser(living, Drawback::FewerScopes(lost));
        }
        match (aim, movement) {
            (Aim::Refresh, _) | (_, ExchangeOutcome::Extended | ExchangeOutcome::NowNeverExpires) => {
                Self::Better(living)
            }
            (Aim::Lengthen, ExchangeOutcome::AtCeiling) => Self::Lesser(living, Drawback::AtCeiling),
            (Aim::Lengthen, ExchangeOutcome::Shortened) => Self::Lesser(living, Drawback::Shortened),
        }
    }
}

impl From<Refusal> for Offer {
    fn from(refusal: Refusal) -> Self {
        match refusal.kind {
            RefusalKind::OtherApp => Self::Useless(Drawback::Foreign),
            RefusalKind::Dead { .. } => Self::Useless(Drawback::Dead),
            _ => Self::Unknown(refusal),
        }
    }
}

/// What the provider says of the token held.
#[derive(Debug)]
pub(super) enum Health {
    Alive(Inspected),
    Dead(Refusal),
    Unknown(Refusal),
}

impl From<Result<Inspected, Refusal>> for Health {
    fn from(inspection: Result<Inspected, Refusal>) -> Self {
        match inspection {
            Ok(inspected) => Self::Alive(inspected),
            Err(refusal) if is_death(&refusal) => Self::Dead(refusal),
            Err(refusal) => Self::Unknown(refusal),
        }
    }
}

/// What becomes of the two tokens. `keep_offer`: the offered one stays pending, because it may still turn out to live.
#[derive(Debug)]
pub(super) enum Decision {
    /// The offered token takes the place of the one held.
    Replace { new: Living, drawback: Option<Drawback> },
    /// The token held works, and the offered one has a drawback.
    Keep { held: Inspected, drawback: Drawback },
    /// The token held works, and nothing is known about the offered one.
    KeepBoth { held: Inspected, refusal: Refusal },
    /// The token held is dead.
    Bury { refusal: Refusal, keep_offer: bool },
    /// Nothing is known about the token held, so nothing is said about it.
    Wait { refusal: Refusal, keep_offer: bool },
}

/// Decides. `held` is `None` until the provider was asked about the token held; `Continue` gives the offer back if that
/// must be done first.
pub(super) fn weigh(offer: Offer, held: Option<Health>) -> ControlFlow<Decision, Offer> {
    use Health::{Alive, Dead, Unknown};
    ControlFlow::Break(match (offer, held) {
        (Offer::Better(new), _) => Decision::Replace { new, drawback: None },
        (offer, None) => return ControlFlow::Continue(offer),
        // The exchange ended the token held. What it gave is worse, but it lives.
        (Offer::Lesser(new, drawback), Some(Dead(_))) => Decision::Replace { new, drawback: Some(drawback) },
        (Offer::Lesser(_, drawback) | Offer::Useless(drawback), Some(Alive(held))) => {
            Decision::Keep { held, drawback }
        }
        (Offer::Lesser(..), Some(Unknown(refusal))) => Decision::Wait { refusal, keep_offer: true },
        (Offer::Useless(_), Some(Dead(refusal))) => Decision::Bury { refusal, keep_offer: false },
        (Offer::Useless(_), Some(Unknown(refusal))) => Decision::Wait { refusal, keep_offer: false },
        (Offer::Unknown(refusal), Some(Alive(held))) => Decision::KeepBoth { held, refusal },
        (Offer::Unknown(_), Some(Dead(refusal))) => Decision::Bury { refusal, keep_offer: true },
        (Offer::Unknown(_), Some(Unknown(refusal))) => Decision::Wait { refusal, keep_offer: true },
    })
}
