//! Every text that a shop owner or an operator can meet, in a file for people to review.

use std::fmt::Write as _;

use strum::VariantArray;

use super::{DAY, NOW, at, each_state, each_unread, policy};
use crate::model::{
    Connection, Misconfiguration, ProviderId, ProviderTrouble, RefusalReason, Refused, Remedy, Standing,
};
use crate::provider::GUIDE;

const REVIEWED: &str = include_str!("remedies.txt");

fn show(texts: &mut String, what: &str, remedy: &Remedy) {
    let Remedy { fixer, message, action, url } = remedy;
    write!(texts, "{what} [{}]\n  {message}\n  {action}\n", fixer.as_str()).expect("a string takes it");
    if !url.is_empty() {
        writeln!(texts, "  {url}").expect("a string takes it");
    }
}

fn all() -> String {
    let (mut texts, meta) = (String::new(), ProviderId::parse("meta").unwrap());
    for (place, refused) in [("stored", Refused::Held), ("new", Refused::Offered)] {
        for reason in RefusalReason::VARIANTS {
            let remedy = Remedy::for_refusal(*reason, refused, &meta, GUIDE);
            show(&mut texts, &format!("{} of a {place} token", reason.as_str()), &remedy);
        }
    }
    let mut seen = std::collections::BTreeMap::new();
    let policy = policy();
    let mut look = |state: &Connection| {
        if state.standing != Standing::Live {
            return;
        }
        for problem in state.health(NOW, &policy).into_problems() {
            let key = (format!("{:?}", problem.reason), problem.harm, problem.remedy.message.clone());
            // A few ends stand for all.
            let ends = [at(NOW), at(NOW + DAY), at(NOW + 7 * DAY)];
            if ends.contains(&state.facts.expiry) || state.facts.expiry.at().is_none() {
                seen.insert(key, problem);
            }
        }
    };
    each_state(&mut look);
    each_unread(&mut look);
    for ((reason, ..), problem) in seen {
        let what = format!("{reason} {:?}, badge {:?}", problem.harm, problem.headline);
        show(&mut texts, &what, &problem.remedy);
    }
    let troubles = Misconfiguration::VARIANTS.iter().map(|problem| ProviderTrouble::Misconfigured(*problem));
    for trouble in troubles.chain([ProviderTrouble::Unreachable, ProviderTrouble::ManyDeaths]) {
        show(&mut texts, &format!("PROVIDER_ALARM {}", trouble.as_str()), &trouble.remedy(&meta, GUIDE));
    }
    show(&mut texts, "THROTTLED", &ProviderTrouble::Throttled.remedy(&meta, GUIDE));
    show(&mut texts, "another API version", &Remedy::for_other_api_version(&meta, GUIDE));
    show(&mut texts, "REVOKED", &Remedy::for_revocation());
    texts
}

#[test]
fn every_text_was_reviewed() {
    let texts = all();
    assert!(texts == REVIEWED, "a text has changed; if it is right, remedies.txt becomes:\n{texts}");
}

#[test]
fn a_refusal_has_an_address_where_the_provider_has_one() {
    use RefusalReason as R;
    let meta = ProviderId::parse("meta").unwrap();
    for refused in [Refused::Held, Refused::Offered] {
        for reason in RefusalReason::VARIANTS {
            let remedy = Remedy::for_refusal(*reason, refused, &meta, GUIDE);
            let has_address = matches!(
                reason,
                R::Checkpoint
                    | R::UnconfirmedAccount
                    | R::PolicyBlocked
                    | R::RoleLost
                    | R::AdminPolicy
                    | R::PermissionRefused
                    | R::WrongApp
            );
            assert_eq!(!remedy.url.is_empty(), has_address, "{reason:?}");
            assert!(remedy.url.is_empty() || url::Url::parse(&remedy.url).unwrap().scheme() == "https");
        }
    }
    // A provider without words of its own gets those that hold for all.
    let other = ProviderId::parse("other").unwrap();
    let remedy = Remedy::for_refusal(R::Checkpoint, Refused::Held, &other, GUIDE);
    assert!(remedy.url.is_empty() && !remedy.action.contains("facebook"), "{remedy:?}");
}
