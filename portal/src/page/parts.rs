//! Parts that several pages share.

use jiff::Timestamp;
use maud::{Markup, html};
use token_vault_client::v1::{Check, ErrorReason, Expiry, Fixer, Remedy, check, expiry};

use crate::notice::{Notice, Tone, https};
use crate::texts;

/// A notice at the top of a card. It takes the focus, so that a screen reader begins there after a form was sent.
pub(super) fn notice(notice: &Notice, provider: &str, brand: &str) -> Markup {
    let (class, role) = match notice.tone {
        Tone::Good => ("good", "status"),
        Tone::Neutral => ("neutral", "status"),
        Tone::Bad => ("bad", "alert"),
    };
    html! {
        section id=(super::RESULT) class={ "notice " (class) } role=(role) tabindex="-1" autofocus {
            h2 { span.tone { (texts::tone(notice.tone)) ": " } (notice.title) }
            (notice_body(notice, Some(provider), brand))
        }
    }
}

pub(super) fn notice_body(notice: &Notice, provider: Option<&str>, brand: &str) -> Markup {
    let helper = notice.helper.and_then(|fixer| texts::who(fixer, provider.unwrap_or(brand), brand));
    html! {
        p { (notice.text) }
        @if !notice.missing.is_empty() {
            ul { @for name in &notice.missing { li { (scope(name)) } } }
        }
        @if let Some(helper) = helper { p { strong { (texts::WHO) } (helper) "." } }
        @if let Some(action) = &notice.action { p { strong { (texts::HOW) } (action) } }
        @if let Some(url) = &notice.url { p { (outside(url)) } }
    }
}

/// A link to a page of the provider.
fn outside(url: &str) -> Markup {
    html! { a href=(url) target="_blank" rel="noopener noreferrer" { (texts::WHERE) } }
}

/// A scope in plain words, with its name for whoever looks for it in the provider's settings.
pub(super) fn scope(name: &str) -> Markup {
    html! {
        @match texts::scope(name) {
            Some(words) => { (words) " " code { (name) } },
            None => code { (name) },
        }
    }
}

/// A moment, in UTC. The script changes the text to the reader's own time zone.
pub(super) fn time(at: &token_vault_client::Timestamp) -> Markup {
    let Ok(at) = Timestamp::new(at.seconds, at.nanos) else { return html! { (texts::END_UNKNOWN) } };
    // A whole second is precise enough, and the attribute must not change from page to page.
    let iso = jiff::fmt::strtime::format("%Y-%m-%dT%H:%M:%SZ", at).unwrap_or_default();
    let words = jiff::fmt::strtime::format(texts::TIME, at).unwrap_or_else(|_| iso.clone());
    html! { time datetime=(iso) { (words) } }
}

pub(super) fn end(expiry: Option<&Expiry>) -> Markup {
    let known = expiry.map(|expiry| (expiry.kind(), expiry.at.as_ref()));
    html! {
        @match known {
            Some((expiry::Kind::At, Some(at))) => (time(at)),
            Some((expiry::Kind::Never, _)) => (texts::NEVER_ENDS),
            _ => (texts::END_UNKNOWN),
        }
    }
}

/// What is wrong, who can fix it, and how. `reason` says whether the remedy is on this page, and `here` whether this page
/// has the button for it.
pub(super) fn remedy(
    remedy: &Remedy,
    reason: ErrorReason,
    here: bool,
    provider: &str,
    brand: &str,
) -> Markup {
    let fixer = remedy.fixer();
    let url = https(&remedy.url);
    let own = here && fixer == Fixer::WorkspaceOwner && url.is_none();
    let action = own.then(|| texts::action_here(reason, provider)).flatten();
    let action = action.unwrap_or_else(|| remedy.action.clone());
    html! {
        p.what { (remedy.message) }
        @if let Some(who) = texts::who(fixer, provider, brand) {
            p { strong { (texts::WHO) } (who) "." }
        }
        @if fixer != Fixer::Nobody && !action.is_empty() { p { strong { (texts::HOW) } (action) } }
        @if let Some(url) = url { p { (outside(&url)) } }
    }
}

/// What the checks found. A check that passed needs no remedy.
pub(super) fn checks(title: &str, checks: &[Check], here: bool, provider: &str, brand: &str) -> Markup {
    html! {
        section aria-labelledby="checks" {
            h2 #checks { (title) }
            ul.checks {
                @for check in checks {
                    @let (result, fallback) = (check.result(), Remedy::default());
                    @let told = check.remedy.as_ref().unwrap_or(&fallback);
                    li class=(result_class(result)) {
                        p.head {
                            strong { (texts::check_name(&check.name)) ": " }
                            span.result { (texts::check_result(result)) }
                            @if let Some(rows) = rows(check) { ", " (texts::rows_read(rows)) }
                        }
                        @match result {
                            check::Result::Warn | check::Result::Fail => {
                                (remedy(told, reason_of(check), here, provider, brand))
                            }
                            // The number of rows says it already.
                            check::Result::Pass if rows(check).is_some() => {}
                            _ => p.what { (told.message) },
                        }
                    }
                }
            }
        }
    }
}

/// How many rows the smoke test read.
pub(super) fn rows(check: &Check) -> Option<u64> {
    if check.name != "smoke_test" {
        return None;
    }
    check.metadata.get("rows")?.parse().ok()
}

/// The problem that a check finds, as far as this page can do something about it.
fn reason_of(check: &Check) -> ErrorReason {
    match check.name.as_str() {
        "required_scopes" => ErrorReason::ScopesMissing,
        "optional_scopes" => ErrorReason::OptionalScopesMissing,
        "expiry" => ErrorReason::ExpiringSoon,
        "data_access" => ErrorReason::DataAccessEnding,
        "token_accepted" => ErrorReason::TokenInvalid,
        _ => ErrorReason::Unspecified,
    }
}

const fn result_class(result: check::Result) -> &'static str {
    match result {
        check::Result::Pass => "pass",
        check::Result::Warn => "warn",
        check::Result::Fail => "fail",
        _ => "open",
    }
}
