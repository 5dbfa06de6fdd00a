//! The pages. Values from the vault, the configuration and addresses are escaped by the templates.

pub(crate) mod card;
mod connection;
pub(crate) mod json;
mod parts;
#[cfg(test)]
mod tests;

use maud::{DOCTYPE, Markup, html};

use crate::config::Site;
use crate::notice::Notice;
use crate::texts;

/// The fragment of the notice on a card.
pub(crate) const RESULT: &str = "result";

/// Sends the browser on without script, which also is no redirect of a form.
pub(crate) struct Refresh {
    seconds: u32,
    url: String,
}

fn layout(site: &Site, title: &str, refresh: Option<&Refresh>, main: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang=(texts::LANGUAGE) {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                meta name="robots" content="noindex, nofollow";
                @if let Some(Refresh { seconds, url }) = refresh {
                    meta http-equiv="refresh" content={ (seconds) ";url=" (url) };
                }
                title { (texts::page_title(title, &site.name)) }
                @if site.logo.is_some() { link rel="icon" href="/assets/logo"; }
                link rel="stylesheet" href="/assets/portal.css";
                script src="/assets/time.js" defer {}
            }
            body {
                header.brand {
                    @if site.logo.is_some() { img src="/assets/logo" alt="" height="32"; }
                    span { (site.name) }
                }
                main { (main) }
            }
        }
    }
}

/// A page with a notice and nothing else.
pub(crate) fn message(site: &Site, notice: &Notice) -> Markup {
    let main = html! {
        h1 { (notice.title) }
        (parts::notice_body(notice, None, &site.name))
    };
    layout(site, &notice.title, None, &main)
}

/// The page between the form and the provider's consent dialog. It leads there at once; the link is for browsers that
/// do not follow. The address holds the state, as it must to get there: this page is never stored.
pub(crate) fn leaving(site: &Site, provider: &str, url: &str) -> Markup {
    let refresh = Refresh { seconds: 0, url: url.to_owned() };
    let title = texts::leaving(provider);
    let main = html! {
        h1 { (title) }
        p role="status" { (texts::leaving_help(provider)) }
        p { a.button.primary href=(url) rel="noreferrer" { (texts::go_on(provider)) } }
    };
    layout(site, &title, Some(&refresh), &main)
}
