//! One connection on the card.

use maud::{Markup, html};
use token_vault_client::v1::token::badge::Color;
use token_vault_client::v1::{
    AdAccount, ConnectionCard, Problem, Remedy, Subject, Token, ad_account, deadline, subject,
};

use super::card::Card;
use super::parts;
use crate::texts;

/// More ad accounts than this are folded away, unless one of them needs attention.
const UNFOLDED: usize = 8;

pub(super) fn section(card: &Card<'_>, connection: &ConnectionCard) -> Markup {
    let fallback = Token::default();
    let token = connection.token.as_ref().unwrap_or(&fallback);
    html! {
        section.connection aria-labelledby={ "account-" (token.connection_id) } {
            h2 id={ "account-" (token.connection_id) } { (name(token)) }
            (facts(card, token))
            (problems(card, &token.problems))
            (scopes(token))
            (ad_accounts(card, connection, token.usable))
            (actions(card, token))
        }
    }
}

/// The account by its name, or by its id.
pub(super) fn name(token: &Token) -> &str {
    let subject = token.subject.as_ref();
    let known = subject.map(|subject| (subject.name.as_str(), subject.id.as_str()));
    match known {
        Some(("", "")) | None => texts::UNNAMED,
        Some(("", id)) => id,
        Some((name, _)) => name,
    }
}

fn facts(card: &Card<'_>, token: &Token) -> Markup {
    let subject = token.subject.as_ref().map(|subject| subject.id.as_str()).unwrap_or_default();
    let of = |kind| token.deadlines.iter().find(|deadline| deadline.kind() == kind);
    let own_end = of(deadline::Kind::Token).and_then(|deadline| deadline.expiry.as_ref());
    let data_access = of(deadline::Kind::DataAccess);
    html! {
        dl {
            div { dt { (texts::STATUS) } dd { (badge(token)) } }
            div {
                dt { (texts::CONNECTED_AS) }
                dd {
                    (name(token))
                    @if !subject.is_empty() && subject != name(token) { " " code { (subject) } }
                    " · " (card.provider)
                }
            }
            div { dt { (texts::TOKEN_ENDS) } dd { (parts::end(own_end.or(token.expiry.as_ref()))) } }
            @if let Some(deadline) = data_access {
                div { dt { (texts::DATA_ACCESS_ENDS) } dd { (parts::end(deadline.expiry.as_ref())) } }
            }
            div {
                dt { (texts::LAST_CHECKED) }
                dd {
                    @match &token.last_validated_at {
                        Some(at) => (parts::time(at)),
                        None => (texts::NEVER_CHECKED),
                    }
                }
            }
        }
    }
}

/// The colour repeats what the text says.
fn badge(token: &Token) -> Markup {
    let badge = token.badge.as_ref();
    let class = match badge.map(token_vault_client::v1::token::Badge::color) {
        Some(Color::Green) => "green",
        Some(Color::Amber) => "amber",
        Some(Color::Red) => "red",
        _ => "grey",
    };
    let text = badge.map(|badge| badge.text.as_str()).filter(|text| !text.is_empty());
    html! { span class={ "badge " (class) } { (text.unwrap_or(texts::END_UNKNOWN)) } }
}

fn problems(card: &Card<'_>, problems: &[Problem]) -> Markup {
    let fallback = Remedy::default();
    html! {
        @if !problems.is_empty() {
            h3 { (texts::PROBLEMS) }
            ul.problems {
                @for problem in problems {
                    li class={ "severity-" (problem.severity) } {
                        p.head { span.severity { (texts::severity(problem.severity())) } }
                        (parts::remedy(
                            problem.remedy.as_ref().unwrap_or(&fallback),
                            problem.reason(),
                            card.can_connect(),
                            &card.provider,
                            &card.site.name,
                        ))
                    }
                }
            }
        }
    }
}

fn scopes(token: &Token) -> Markup {
    let missing: Vec<_> = token
        .missing_required_scopes
        .iter()
        .map(|name| (name, texts::MISSING_REQUIRED))
        .chain(token.missing_optional_scopes.iter().map(|name| (name, texts::MISSING_OPTIONAL)))
        .collect();
    html! {
        @if !missing.is_empty() {
            h3 { (texts::MISSING) }
            ul { @for (name, need) in missing { li { (parts::scope(name)) " (" (need) ")" } } }
        }
        h3 { (texts::GRANTED) }
        @if token.scopes.is_empty() {
            p { (texts::NONE) }
        } @else {
            ul {
                @for name in &token.scopes { li { (parts::scope(name)) } }
                @if token.left_out_scopes > 0 { li { (texts::left_out(token.left_out_scopes)) } }
            }
        }
    }
}

fn ad_accounts(card: &Card<'_>, connection: &ConnectionCard, usable: bool) -> Markup {
    let left_out = usize::try_from(connection.left_out_ad_accounts).unwrap_or_default();
    let count = connection.ad_accounts.len() + left_out;
    let (bad, good): (Vec<_>, Vec<_>) =
        connection.ad_accounts.iter().partition(|account| account.problem.is_some() || !account.reachable);
    html! {
        @if count == 0 {
            h3 { (texts::ad_accounts(0)) }
            p { (texts::NONE) }
        } @else {
            details open[count <= UNFOLDED || !bad.is_empty()] {
                summary { h3 { (texts::ad_accounts(count)) } }
                ul.accounts {
                    @for account in bad.into_iter().chain(good) { (ad_account(card, account, usable)) }
                    @if left_out > 0 { li { (texts::left_out(connection.left_out_ad_accounts)) } }
                }
            }
        }
    }
}

/// `usable` says whether the connection works now. With one that does not, nobody reads the account today.
fn ad_account(card: &Card<'_>, account: &AdAccount, usable: bool) -> Markup {
    let (class, health) = match (account.reachable, usable) {
        (true, true) => ("pass", texts::REACHABLE),
        (true, false) => ("open", texts::WAS_REACHABLE),
        (false, _) => ("fail", texts::UNREACHABLE),
    };
    let state = account.state();
    let own_word = matches!(state, ad_account::State::Unknown | ad_account::State::Limited);
    html! {
        li class=(class) {
            p.head {
                @if !account.name.is_empty() { strong { (account.name) } " " }
                code { (account.id) } " "
                span.result { (health) } ", " (texts::account_state(state))
                @if own_word && !account.provider_state.is_empty() { " (" (account.provider_state) ")" }
            }
            @if let Some(problem) = &account.problem {
                @if let Some(remedy) = &problem.remedy {
                    (parts::remedy(remedy, problem.reason(), card.can_connect(), &card.provider, &card.site.name))
                }
            }
        }
    }
}

fn actions(card: &Card<'_>, token: &Token) -> Markup {
    let id = &token.connection_id;
    // A consent gives a person's token, which is not a page's or a system user's.
    let kind = token.subject.as_ref().map(Subject::r#type).unwrap_or_default();
    let by_consent = !matches!(kind, subject::Type::Page | subject::Type::SystemUser | subject::Type::App);
    html! {
        @if card.csrf.is_some() {
            div.actions {
                @if card.can_connect() && by_consent {
                    (card.form("connect", Some(id), &html! {
                        button.primary[!token.problems.is_empty()] type="submit" { (texts::reconnect(&card.provider)) }
                    }))
                }
                (card.form("validate", Some(id), &html! { button type="submit" { (texts::CHECK_NOW) } }))
            }
            @if card.can_connect() { (card.paste(Some(id))) }
        }
    }
}
