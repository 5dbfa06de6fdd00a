//! The checks of a token: names, order, and how each one asks the provider.

use std::collections::BTreeSet;

use crate::model::{
    AdAccountList, AdAccountState, Check, CheckResult, DataWord, Expiry, Fixer, GrantState, Health, Listing,
    Policy, Problem, ProblemReason, Refusal, RefusalKind, RefusalReason, Refused, Remedy, Secret, Standpoint,
    Timestamp, TokenFacts,
};
use crate::provider::{Inspected, Provider};
use crate::vault::token::inspection::is_death;
use crate::vault::token::judges;

/// The names of all checks, in the order in which they run and are reported.
pub const CHECKS: [&str; 9] = [
    "token_accepted",
    "app_matches",
    "required_scopes",
    "optional_scopes",
    "expiry",
    "data_access",
    "ad_accounts",
    "smoke_test",
    "call_budget",
];

/// The checks that use the token.
const USES: [&str; 2] = ["ad_accounts", "smoke_test"];
/// Above this utilisation, the check of the call budget warns.
const THROTTLED_PERCENT: f64 = 80.0;
pub(in crate::vault) const NO_TIME: &str = "Not tried: no time was left.";
/// The number of ad accounts that are tried before the smoke test fails.
const SMOKE_TRIES: usize = 3;

pub(in crate::vault) struct Examination {
    pub(in crate::vault) checks: Vec<Check>,
    pub(in crate::vault) inspection: Result<Inspected, Refusal>,
    /// The ad accounts, if they could be listed.
    pub(in crate::vault) accounts: Option<AdAccountList>,
    /// What using the token said about it.
    pub(in crate::vault) data: DataWord,
}

impl Examination {
    fn is_dead(&self) -> bool {
        self.inspection.as_ref().is_err_and(is_death)
    }

    /// The checks say what the examination has made known: that data calls refuse the token, and that ad accounts are lost.
    pub(in crate::vault) fn settle(&mut self, health: &Health) {
        settle_lost_accounts(&mut self.checks, health);
        let death = health.problem(ProblemReason::TokenInvalid);
        let Some(death) = death.filter(|_| matches!(self.data, DataWord::Refused { .. })) else { return };
        let told = |check: &&mut Check| {
            let doubted = matches!(check.result, CheckResult::Unknown | CheckResult::Fail);
            check.name == "token_accepted" || USES.contains(&check.name) && doubted
        };
        for check in self.checks.iter_mut().filter(told) {
            (check.result, check.remedy) = (CheckResult::Fail, death.remedy.clone());
        }
    }
}

/// A list of ad accounts shows only together with the earlier one that some are lost. The check then says so, in the words of
/// the problem, unless something of the list could not be read.
pub(in crate::vault) fn settle_lost_accounts(checks: &mut [Check], health: &Health) {
    let mut lost = [ProblemReason::NoAdAccounts, ProblemReason::AdAccountsUnreachable].into_iter();
    let Some(lost) = lost.find_map(|reason| health.problem(reason)) else { return };
    let told = |check: &&mut Check| {
        check.name == "ad_accounts"
            && check.metadata.contains_key("count")
            && !check.metadata.contains_key("unread")
    };
    if let Some(check) = checks.iter_mut().find(told) {
        // In the problem, `count` is how many are lost, in the check how many are reached.
        let reached = check.metadata.remove("count").unwrap_or_default();
        *check = Check::of("ad_accounts", Some(lost.clone()), Remedy::none(""));
        if let Some(lost) = check.metadata.insert("count".to_owned(), reached) {
            check.metadata.insert("lost".to_owned(), lost);
        }
    }
}

/// The token to examine.
pub(in crate::vault) struct Patient<'a> {
    pub(in crate::vault) provider: &'a dyn Provider,
    pub(in crate::vault) secret: &'a Secret,
    /// What was known of the token before.
    pub(in crate::vault) held: Option<&'a TokenFacts>,
    pub(in crate::vault) policy: &'a Policy,
    pub(in crate::vault) now: Timestamp,
    /// The names of the wanted checks; empty means all.
    pub(in crate::vault) wanted: &'a BTreeSet<String>,
    /// The ad account for the smoke test.
    pub(in crate::vault) ad_account: Option<&'a str>,
    /// What the last list of the connection's ad accounts taught.
    pub(in crate::vault) listing: Listing,
}

impl Patient<'_> {
    fn wants(&self, check: &str) -> bool {
        self.wanted.is_empty() || self.wanted.contains(check)
    }

    /// Runs the checks. `inspected` saves an inspection that was just made.
    pub(in crate::vault) async fn examine(&self, inspected: Option<Inspected>) -> Examination {
        let inspection = match inspected {
            Some(inspected) => Ok(inspected),
            None => self.provider.inspect(self.secret).await,
        };
        let mut found =
            Examination { checks: Vec::new(), inspection, accounts: None, data: DataWord::NotAsked };
        found.checks.extend(self.identity(&found.inspection));
        match &found.inspection {
            Ok(inspected) => {
                let checks = self.scopes_and_expiry(inspected);
                found.checks.extend(checks);
                let facts = self.facts(inspected);
                self.use_token(&mut found, &facts).await;
            }
            Err(_) => {
                let (result, message) = if is_out_of_time(&found.inspection) {
                    (CheckResult::Skipped, NO_TIME)
                } else if found.is_dead() {
                    (CheckResult::Skipped, "Not tried: the token is not accepted.")
                } else {
                    (CheckResult::Unknown, "The provider could not be asked.")
                };
                let rest = CHECKS.iter().skip(2).filter(|name| **name != "call_budget");
                found.checks.extend(rest.map(|name| Check::new(name, result, Remedy::none(message))));
            }
        }
        found.checks.push(self.call_budget());
        found.checks.retain(|check| self.wants(check.name));
        found
    }

    /// Whether the provider accepts the token, and whether it was issued to our app.
    fn identity(&self, inspection: &Result<Inspected, Refusal>) -> [Check; 2] {
        let pass = |name, message: &str| Check::new(name, CheckResult::Pass, Remedy::none(message));
        match inspection {
            Ok(inspected) => [
                pass("token_accepted", "The provider accepts the token."),
                pass("app_matches", "The token was made for our app.").with("app_id", &inspected.app_id),
            ],
            Err(refusal) => match &refusal.kind {
                RefusalKind::Dead { reason } => [
                    Check::new("token_accepted", CheckResult::Fail, self.refusal(*reason))
                        .with("refusal", reason.as_str())
                        .with("provider_code", refusal.provider_code()),
                    Check::new(
                        "app_matches",
                        CheckResult::Skipped,
                        Remedy::none("Not tried: the token is not accepted."),
                    ),
                ],
                RefusalKind::OtherApp => [
                    Check::new(
                        "token_accepted",
                        CheckResult::Skipped,
                        Remedy::none("Not tried: the token is another app's."),
                    ),
                    Check::new("app_matches", CheckResult::Fail, self.refusal(RefusalReason::WrongApp)),
                ],
                _ => {
                    let check = self.of_refusal("token_accepted", refusal);
                    [check.clone(), Check { name: "app_matches", ..check }]
                }
            },
        }
    }

    fn refusal(&self, reason: RefusalReason) -> Remedy {
        Remedy::for_refusal(reason, Refused::Held, self.provider.id(), self.policy.guide)
    }

    fn standpoint(&self) -> Standpoint<'_> {
        Standpoint { provider: self.provider.id(), now: self.now, policy: self.policy }
    }

    /// What is known of the token after this inspection.
    fn facts(&self, inspected: &Inspected) -> TokenFacts {
        let told = &inspected.facts;
        self.held.map_or_else(|| told.of_new_token(None), |held| told.onto(held))
    }

    fn scopes_and_expiry(&self, inspected: &Inspected) -> [Check; 4] {
        let (from, told) = (self.standpoint(), &inspected.facts);
        let facts = &self.facts(inspected);
        // Only now it is known who took a scope away. The remedy is that of the problem.
        let check = |name, missing: Vec<String>, problem, good: &str| {
            [("declined", GrantState::Declined), ("expired", GrantState::Expired)].into_iter().fold(
                Check::of(name, problem, Remedy::none(good)),
                |check, (key, state)| match told.scopes.in_state(&missing, state) {
                    scopes if scopes.is_empty() => check,
                    scopes => check.with(key, scopes.join(", ")),
                },
            )
        };
        let (required, optional) =
            (self.policy.missing_required(&facts.scopes), self.policy.missing_optional(&facts.scopes));
        [
            check(
                "required_scopes",
                required,
                from.required_scopes(facts),
                "All required scopes are granted.",
            ),
            check(
                "optional_scopes",
                optional,
                from.optional_scopes(facts),
                "All optional scopes are granted.",
            ),
            self.end("expiry", facts.expiry, "The token", from.end(facts)),
            self.end("data_access", facts.data_access, "Data access", from.data_access(facts)),
        ]
    }

    fn end(&self, name: &'static str, expiry: Expiry, what: &str, problem: Option<Problem>) -> Check {
        let good = match expiry {
            Expiry::At(end, _) => format!("{what} ends on {}.", end.to_the_minute()),
            Expiry::Never => format!("{what} does not end."),
            Expiry::Unknown => format!("{what}: the provider names no end."),
        };
        let check = Check::of(name, problem, Remedy::none(good));
        match expiry {
            Expiry::At(end, _) => {
                let days = end.since(self.now).as_secs().div_ceil(24 * 60 * 60);
                check.with("ends_at", end).with("days_left", days)
            }
            Expiry::Never | Expiry::Unknown => check,
        }
    }

    /// Uses the token: lists its ad accounts and reads one. A death that shows only here must be confirmed by another
    /// inspection.
    async fn use_token(&self, found: &mut Examination, facts: &TokenFacts) {
        if !self.wants("ad_accounts") && !self.wants("smoke_test") {
            return;
        }
        let mut refused = None;
        let (listed, data) = judges::list_or_try(self.provider, self.secret, facts, self.listing).await;
        found.data = data;
        match listed {
            Ok(list) => {
                found.checks.push(self.reachable(&list));
                match self.smoke_test(&list).await {
                    Ok(check) => found.checks.push(check),
                    Err(refusal) => refused = Some(("smoke_test", refusal)),
                }
                found.accounts = Some(list);
            }
            Err(refusal) => {
                let skipped = Remedy::none("Not tried: the ad accounts could not be listed.");
                found.checks.push(Check::new("smoke_test", CheckResult::Skipped, skipped));
                refused = Some(("ad_accounts", refusal));
            }
        }
        let Some((name, refusal)) = refused else { return };
        found.checks.push(self.of_refusal(name, &refusal));
        found.checks.sort_by_key(|check| CHECKS.iter().position(|name| *name == check.name));
        if matches!(refusal.kind, RefusalKind::Dead { .. }) {
            if name == "smoke_test" {
                found.data = DataWord::of(&self.provider.try_data(self.secret, facts).await);
            }
            let again = self.provider.inspect(self.secret).await;
            let identity = self.identity(&again);
            for check in identity {
                if let Some(earlier) = found.checks.iter_mut().find(|found| found.name == check.name) {
                    *earlier = check;
                }
            }
            found.inspection = again;
            if !found.is_dead()
                && let Some(check) = found.checks.iter_mut().find(|check| check.name == name)
            {
                check.result = CheckResult::Unknown;
            }
        }
    }

    fn reachable(&self, list: &AdAccountList) -> Check {
        let count = u32::try_from(list.accounts.len()).unwrap_or(u32::MAX);
        let plural = if count == 1 { "" } else { "s" };
        let good = format!("The token reaches {count} ad account{plural}.");
        let reached = if list.is_complete() { Some(count) } else { Some(count).filter(|count| *count > 0) };
        let unread = self.standpoint().unread(list.listing.unread);
        let problem = self.standpoint().ad_accounts(reached, 0);
        let check = match (problem, unread) {
            (None, Some(mut unread)) => {
                unread.remedy.message = format!("{good} {}", unread.remedy.message);
                Check {
                    result: CheckResult::Warn,
                    ..Check::of("ad_accounts", Some(unread), Remedy::none(""))
                }
            }
            (problem, _) => Check::of("ad_accounts", problem, Remedy::none(good)),
        };
        check.with("count", count)
    }

    async fn smoke_test(&self, list: &AdAccountList) -> Result<Check, Refusal> {
        let candidates: Vec<&str> = match self.ad_account {
            Some(id) => vec![id],
            None => {
                let mut usable: Vec<_> = list.accounts.iter().collect();
                usable.sort_by_key(|account| match account.state {
                    AdAccountState::Active => 0,
                    AdAccountState::Limited => 1,
                    _ => 2,
                });
                usable.into_iter().take(SMOKE_TRIES).map(|account| account.id.as_str()).collect()
            }
        };
        let mut last = None;
        for id in candidates {
            match self.provider.smoke_test(self.secret, id).await {
                Ok(seen) if seen.rows > 0 => {
                    let remedy = Remedy::none(match seen.rows {
                        1 => "Read 1 row of the last 7 days.".to_owned(),
                        rows => format!("Read {rows} rows of the last 7 days."),
                    });
                    return Ok(Check::new("smoke_test", CheckResult::Pass, remedy)
                        .with("ad_account_id", id)
                        .with("rows", seen.rows));
                }
                Ok(_) => {
                    let remedy = Remedy::none("Works; the ad account had no delivery in the last 7 days.");
                    return Ok(Check::new("smoke_test", CheckResult::Warn, remedy)
                        .with("ad_account_id", id)
                        .with("rows", 0)
                        .with("reason", "NO_DELIVERY"));
                }
                // A refusal for one account says nothing about the token: try another.
                Err(refusal) if matches!(refusal.kind, RefusalKind::Permission { .. }) => {
                    last = Some(self.of_refusal("smoke_test", &refusal).with("ad_account_id", id));
                }
                Err(refusal) => return Err(refusal),
            }
        }
        let none = Remedy::none(if list.is_complete() {
            "Not tried: the token reaches no ad account."
        } else {
            "Not tried: no ad account could be listed."
        });
        Ok(last.unwrap_or_else(|| Check::new("smoke_test", CheckResult::Skipped, none)))
    }

    /// The check that a refusal failed.
    fn of_refusal(&self, name: &'static str, refusal: &Refusal) -> Check {
        let (result, remedy) = match &refusal.kind {
            RefusalKind::Transient { .. } => (
                CheckResult::Unknown,
                Remedy::new(Fixer::Nobody, "The provider could not be asked.", "Try again in a while."),
            ),
            RefusalKind::OutOfTime => (CheckResult::Skipped, Remedy::none(NO_TIME)),
            RefusalKind::Throttled { scope, retry_after } => (
                CheckResult::Unknown,
                Remedy::new(
                    Fixer::Nobody,
                    format!("The provider limits calls in the scope {scope}."),
                    format!("Try again in {} seconds.", retry_after.as_secs()),
                ),
            ),
            RefusalKind::Dead { reason } => (CheckResult::Fail, self.refusal(*reason)),
            RefusalKind::OtherApp => (CheckResult::Fail, self.refusal(RefusalReason::WrongApp)),
            RefusalKind::Blocked => (CheckResult::Fail, self.refusal(RefusalReason::PolicyBlocked)),
            RefusalKind::Permission { .. } => (
                CheckResult::Fail,
                Remedy::new(
                    Fixer::AdAccountAdmin,
                    "The provider refuses this with the token's permissions.",
                    "Have the person's role on the ad account restored, or reconnect and grant the scopes.",
                ),
            ),
            RefusalKind::Ours(problem) => {
                let (provider, guide) = (self.provider.id(), self.policy.guide);
                (CheckResult::Unknown, Remedy::for_misconfiguration(*problem, provider, guide))
            }
        };
        Check::new(name, result, remedy).with("provider_code", refusal.provider_code())
    }

    fn call_budget(&self) -> Check {
        match self.provider.usage() {
            None => Check::new(
                "call_budget",
                CheckResult::Pass,
                Remedy::none("The provider has not reported any usage yet, so this means little."),
            ),
            Some(usage) => {
                let high = usage.utilization_percent >= THROTTLED_PERCENT || !usage.retry_after.is_zero();
                let message = format!(
                    "{:.0} % of the {} limit is used.",
                    usage.utilization_percent,
                    usage.scope.replace('_', " ")
                );
                let (result, remedy) = if high {
                    (
                        CheckResult::Warn,
                        Remedy::new(Fixer::Nobody, message, "Make fewer calls until the limit recovers."),
                    )
                } else {
                    (CheckResult::Pass, Remedy::none(message))
                };
                Check::new("call_budget", result, remedy)
                    .with("scope", &usage.scope)
                    .with("utilization_percent", usage.utilization_percent)
            }
        }
    }
}

fn is_out_of_time<T>(outcome: &Result<T, Refusal>) -> bool {
    outcome.as_ref().is_err_and(|refusal| matches!(refusal.kind, RefusalKind::OutOfTime))
}

/// The worst result; `Skipped` if there are no checks.
pub fn worst(checks: &[Check]) -> CheckResult {
    checks.iter().map(|check| check.result).max().unwrap_or(CheckResult::Skipped)
}
