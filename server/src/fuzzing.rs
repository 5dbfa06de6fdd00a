//! Entry points for fuzzing, compiled by `fuzz/run` only. No outside input may make the process panic, and each entry
//! point checks a promise or two about what it parsed.

use crate::{api, config, crypto, model, oidc, provider, vault};

/// The first byte chooses the parser, so that one corpus serves them all.
fn choice(data: &[u8]) -> Option<(u8, &[u8])> {
    data.split_first().map(|(first, rest)| (*first, rest))
}

/// Replies of the provider.
pub fn graph(data: &[u8]) {
    if let Some((choice, rest)) = choice(data) {
        provider::fuzzing::reply(choice, rest);
        provider::fuzzing::callback(rest);
    }
}

/// Input of callers.
pub fn caller(data: &[u8]) {
    let Some((choice, rest)) = choice(data) else { return };
    match choice % 6 {
        0 | 1 => api::fuzzing::message(rest),
        2 => vault::fuzzing::text(&String::from_utf8_lossy(rest)),
        4 => oidc::fuzzing::token(&String::from_utf8_lossy(rest)),
        5 => oidc::fuzzing::published(&String::from_utf8_lossy(rest)),
        _ => {
            // Appends a text that no error message contains otherwise.
            let text = String::from_utf8_lossy(rest);
            for key in [text.clone().into_owned(), format!("{text}xq7Zk2m")] {
                let shown =
                    crypto::PresentedKey::parse(&model::Secret::new(key)).map_err(|why| why.to_string());
                assert!(shown.err().is_none_or(|why| !why.contains("xq7Zk2m")), "the error repeats the key");
            }
        }
    }
}

/// Input of the operator.
pub fn operator(data: &[u8]) {
    let Some((choice, rest)) = choice(data) else { return };
    let text = String::from_utf8_lossy(rest);
    match choice % 4 {
        0 => config::fuzzing::file(&text),
        1 => {
            let file = model::Secret::new(text.into_owned());
            if let Err(why) = crypto::MasterKeys::parse(&file) {
                assert!(why.to_string().len() < 200, "the error repeats the file");
            }
        }
        2 => model_parsers(&text),
        _ => api::fuzzing::certificate(rest),
    }
}

fn model_parsers(text: &str) {
    let now = model::Timestamp::from_unix_seconds(1_800_000_000);
    if let Ok(cron) = model::Cron::parse(text) {
        let (last, next) = (cron.latest_at_or_before(now), cron.next_after(now));
        assert!(last.is_none_or(|last| last <= now) && next.is_none_or(|next| next > now), "{text}");
    }
    if let Ok(id) = model::WorkspaceId::parse(text) {
        assert_eq!(id.as_str(), text);
    }
    if let Ok(id) = model::ConnectionId::parse(text) {
        assert_eq!(model::ConnectionId::parse(&id.to_string()).ok(), Some(id));
    }
}
