//! The card: what is connected, how it is, and what the person can do.

use maud::{Markup, html};
use token_vault_client::v1::{Check, OpenConnectLinkResponse, connect_link};
use url::Url;

use super::{connection, layout, parts};
use crate::config::Site;
use crate::notice::Notice;
use crate::outcome::Outcome;
use crate::texts;
use crate::web::link::LinkId;

/// What a card shows.
pub(crate) struct Card<'a> {
    pub(crate) site: &'a Site,
    pub(crate) id: &'a LinkId,
    pub(crate) open: &'a OpenConnectLinkResponse,
    /// The provider in words.
    pub(crate) provider: String,
    /// What the card's forms carry. `None`: the card has no forms.
    pub(crate) csrf: Option<String>,
    pub(crate) notice: Option<Notice>,
    pub(crate) checks: &'a [Check],
    /// The connection that the checks are about.
    pub(crate) checked: &'a str,
    pub(crate) back: Option<Back>,
    /// Whether the card is to stand in a frame of another page.
    pub(crate) embedded: bool,
}

/// The way back to the platform that made the link.
pub(crate) struct Back {
    url: String,
    host: String,
    /// Whether it is what the person does next. The browser does not go there by itself: a page that leaves before it is
    /// read shuts out whoever reads slowly (WCAG 2.2.1).
    is_next: bool,
}

impl Back {
    /// Nothing but the link's own `return_url`, which the vault has checked against its configuration, is ever used.
    pub(crate) fn of(open: &OpenConnectLinkResponse, outcome: Outcome, connection_id: &str) -> Option<Self> {
        let mut url = return_url(open)?;
        let host = url.host_str()?.to_owned();
        url.query_pairs_mut().append_pair("connect_result", outcome.code());
        if outcome == Outcome::Connected && !connection_id.is_empty() {
            url.query_pairs_mut().append_pair("connection_id", connection_id);
        }
        Some(Self { url: url.into(), host, is_next: outcome == Outcome::Connected })
    }
}

/// Where the link leads back to, if it is an address that a page may link to.
pub(super) fn return_url(open: &OpenConnectLinkResponse) -> Option<Url> {
    let text = open.link.as_ref().map(|link| link.return_url.as_str())?;
    Url::parse(text).ok().filter(|url| matches!(url.scheme(), "https" | "http"))
}

impl<'a> Card<'a> {
    pub(crate) fn new(site: &'a Site, id: &'a LinkId, open: &'a OpenConnectLinkResponse) -> Self {
        Self {
            site,
            id,
            open,
            provider: texts::provider(provider(open)),
            csrf: None,
            notice: None,
            checks: &[],
            checked: "",
            back: None,
            embedded: false,
        }
    }

    /// Whether an account can be connected here.
    pub(super) fn can_connect(&self) -> bool {
        self.csrf.is_some() && is_open(self.open)
    }

    pub(super) fn form(&self, step: &str, connection_id: Option<&str>, content: &Markup) -> Markup {
        html! {
            form method="post" action={ "/card/" (self.id.as_str()) "/" (step) } {
                @if let Some(csrf) = &self.csrf { input type="hidden" name="csrf" value=(csrf); }
                @if let Some(id) = connection_id { input type="hidden" name="connection_id" value=(id); }
                (content)
            }
        }
    }

    /// The form for a token that the person has already. Its field never gets a value from us. It has no longest length,
    /// because browsers cut what is pasted without a word.
    pub(super) fn paste(&self, connection_id: Option<&str>) -> Markup {
        let name = connection_id.unwrap_or("new");
        let (field, help) = (format!("token-{name}"), format!("help-{name}"));
        html! {
            details.paste {
                summary { (texts::PASTE) }
                (self.form("paste", connection_id, &html! {
                    label for=(field) { (texts::PASTE_LABEL) }
                    input id=(field) name="access_token" type="password" autocomplete="off" spellcheck="false"
                        autocapitalize="none" required aria-describedby=(help);
                    p.help id=(help) { (texts::PASTE_HELP) }
                    button type="submit" { (texts::PASTE_BUTTON) }
                }))
            }
        }
    }

    pub(crate) fn page(&self) -> Markup {
        let title = texts::card_title(&self.provider, workspace(self.open));
        // The title is the first thing that a screen reader says of a new page.
        let page_title = match &self.notice {
            Some(notice) => format!("{} · {title}", notice.title),
            None => title.clone(),
        };
        let main = html! {
            h1 { (title) }
            @if self.embedded {
                p {
                    a.button href={ "/card/" (self.id.as_str()) } target="_blank" rel="noopener" {
                        (texts::OPEN_CARD)
                    }
                }
            }
            @if let Some(notice) = &self.notice { (parts::notice(notice, &self.provider, &self.site.name)) }
            @if let Some(back) = &self.back { (way_back(back)) }
            @if !self.checks.is_empty() {
                (parts::checks(&self.checks_title(), self.checks, self.can_connect(), &self.provider, &self.site.name))
            }
            @for connection in &self.open.connections { (connection::section(self, connection)) }
            @if self.open.left_out_connections > 0 { p { (texts::left_out(self.open.left_out_connections)) } }
            @if self.has_beginning() { (self.beginning()) }
        };
        layout(self.site, &page_title, None, &main)
    }

    /// Where there are several connections, the title says which one was checked.
    fn checks_title(&self) -> String {
        let tokens = self.open.connections.iter().filter_map(|connection| connection.token.as_ref());
        let several = tokens.clone().count() > 1;
        match tokens.into_iter().find(|token| several && token.connection_id == self.checked) {
            Some(token) => texts::checks_of(connection::name(token)),
            None => texts::CHECKS.to_owned(),
        }
    }

    fn has_beginning(&self) -> bool {
        self.open.connections.is_empty() || !is_open(self.open) || !self.embedded
    }

    /// The part that connects an account that is new, and says what the connection is for.
    fn beginning(&self) -> Markup {
        let none = self.open.connections.is_empty();
        let only_one = self.open.link.as_ref().is_some_and(|link| link.connection_id.is_some());
        html! {
            section.beginning {
                @if none {
                    h2 { (texts::NO_CONNECTION) }
                    @if self.can_connect() {
                        p { (texts::no_connection(&self.provider)) }
                        (self.asked_for())
                    }
                }
                @if self.can_connect() && !none && !only_one { h2 { (texts::ANOTHER) } }
                @if self.can_connect() && (none || !only_one) {
                    @let words = if none {
                        texts::connect(&self.provider)
                    } else {
                        texts::connect_another(&self.provider)
                    };
                    div.actions {
                        (self.form("connect", None, &html! { button.primary[none] type="submit" { (words) } }))
                    }
                    (self.paste(None))
                }
                @if !is_open(self.open) { p.used { (texts::USED) } }
                @if !self.embedded {
                    p.intro { (texts::intro(&self.provider, workspace(self.open), &self.site.name)) }
                }
            }
        }
    }

    fn asked_for(&self) -> Markup {
        let required = self.open.required_scopes.iter().map(|name| (name, texts::MISSING_REQUIRED));
        let optional = self.open.optional_scopes.iter().map(|name| (name, texts::MISSING_OPTIONAL));
        let all: Vec<_> = required.chain(optional).collect();
        html! {
            @if !all.is_empty() {
                h3 { (texts::WILL_ASK) }
                ul { @for (name, need) in all { li { (parts::scope(name)) " (" (need) ")" } } }
            }
        }
    }
}

fn way_back(back: &Back) -> Markup {
    html! {
        div.back {
            a.button.primary[back.is_next] href=(back.url) rel="noreferrer" {
                @if back.is_next { (texts::continue_to(&back.host)) } @else { (texts::back_to(&back.host)) }
            }
        }
    }
}

pub(crate) fn is_open(open: &OpenConnectLinkResponse) -> bool {
    open.link.as_ref().is_some_and(|link| link.state() == connect_link::State::Open)
}

/// The provider's id.
pub(crate) fn provider(open: &OpenConnectLinkResponse) -> &str {
    open.link.as_ref().map(|link| link.provider.as_str()).unwrap_or_default()
}

/// The workspace by its name, or by its id.
pub(crate) fn workspace(open: &OpenConnectLinkResponse) -> &str {
    let id = open.link.as_ref().map(|link| link.workspace_id.as_str()).unwrap_or_default();
    Some(open.workspace_display_name.as_str()).filter(|name| !name.trim().is_empty()).unwrap_or(id)
}
