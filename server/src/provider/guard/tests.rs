use super::*;

fn refused(kind: RefusalKind) -> Result<(), Refusal> {
    Err(Refusal::new(kind, "no"))
}

/// The trouble that is announced next.
fn announced(gate: &Gate) -> Option<ProviderTrouble> {
    let found = gate.found()?;
    gate.has_noted(&found);
    Some(found.trouble)
}

fn fault() -> Result<(), Refusal> {
    refused(RefusalKind::Transient { retry_after: None })
}

#[test]
fn a_streak_over_time_is_an_outage_and_a_burst_is_not() {
    let gate = Gate::default();
    for _ in 0..20 {
        gate.observe(&fault());
    }
    assert_eq!(announced(&gate), None);
    gate.streak.lock().as_mut().unwrap().since = Instant::now() - SPAN;
    gate.observe(&fault());
    assert_eq!(announced(&gate), Some(ProviderTrouble::Unreachable));
    assert_eq!(announced(&gate), None, "reported once");
}

#[test]
fn what_was_found_stays_until_it_is_announced_and_each_work_has_its_own() {
    use ProviderTrouble::{Misconfigured, Throttled, Unreachable};
    let gate = Gate::default();
    gate.observe(&refused(RefusalKind::Ours(Misconfiguration::AppSecret)));
    gate.report(Work::Validation, Unreachable, String::new());
    gate.report(Work::Renewal, Throttled, "4".into());
    let renewal = gate.found().unwrap();
    assert_eq!(
        (renewal.work, gate.found()),
        (Some(Work::Renewal), Some(renewal.clone())),
        "it was not taken"
    );
    gate.report(Work::Renewal, Unreachable, "2".into());
    gate.has_noted(&renewal);
    assert!(gate.holds(Work::Renewal) && gate.holds(Work::Validation));
    let rest: Vec<_> = std::iter::from_fn(|| announced(&gate)).collect();
    assert_eq!(rest, [Unreachable, Unreachable, Misconfigured(Misconfiguration::AppSecret)]);
    assert!(!gate.holds(Work::Renewal) && !gate.holds(Work::Validation));
}

#[test]
fn any_reply_ends_the_streak_and_only_errors_make_one() {
    let gate = Gate::default();
    let dead = RefusalKind::Dead { reason: crate::model::RefusalReason::Expired };
    let throttled = RefusalKind::Throttled { scope: "app".into(), retry_after: WAIT };
    for answer in [Ok(()), refused(dead), refused(throttled)] {
        gate.observe(&fault());
        gate.streak.lock().as_mut().unwrap().since = Instant::now() - SPAN * 2;
        gate.observe(&answer);
        assert!(gate.streak.lock().is_none(), "{answer:?}");
    }
    assert_eq!(announced(&gate), None);
}

#[test]
fn a_wrong_app_secret_is_reported_at_once() {
    let gate = Gate::default();
    gate.observe(&refused(RefusalKind::Ours(Misconfiguration::AppSecret)));
    assert_eq!(announced(&gate), Some(ProviderTrouble::Misconfigured(Misconfiguration::AppSecret)));
    gate.observe(&refused(RefusalKind::Ours(Misconfiguration::Request)));
    assert_eq!(announced(&gate), None);
}
