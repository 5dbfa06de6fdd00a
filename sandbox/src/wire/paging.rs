//! Paging by cursors: `paging.cursors`, `paging.next` (which contains the token), and an empty page on request.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use url::form_urlencoded;

use crate::wire::error::{self, GraphError};
use crate::wire::request::GraphRequest;

const DEFAULT_LIMIT: usize = 25;
const MAX_LIMIT: usize = 5_000;

/// Where a page starts, and whether the empty page has already been shown.
#[derive(Clone, Copy, Debug, Default)]
struct Position {
    offset: usize,
    past_empty: bool,
}

impl Position {
    fn cursor(self, list: &str) -> String {
        let text = format!("{list}|{}|{}", self.offset, u8::from(self.past_empty));
        format!("{}ZD", URL_SAFE_NO_PAD.encode(text))
    }

    /// Decodes a cursor. One of another list is not valid.
    fn read(cursor: &str, list: &str) -> Option<Self> {
        let text = URL_SAFE_NO_PAD.decode(cursor.strip_suffix("ZD")?).ok()?;
        let text = String::from_utf8(text).ok()?;
        let mut parts = text.rsplitn(3, '|');
        let past_empty = parts.next()? == "1";
        let offset = parts.next()?.parse().ok()?;
        (parts.next()? == list).then_some(Self { offset, past_empty })
    }
}

/// A list that is shown in pages.
pub(crate) struct List<'a> {
    /// The cursors of its pages are valid for this name only.
    pub(crate) name: String,
    pub(crate) items: &'a [Value],
    /// The number of the page that has no items, counted from 1.
    pub(crate) empty_page: Option<usize>,
    /// A page with more rows is refused.
    pub(crate) most_rows: Option<usize>,
}

/// One page of a list.
pub(crate) fn page(request: &GraphRequest, base_url: &str, list: &List<'_>) -> Result<Value, GraphError> {
    let List { name, items, empty_page, most_rows } = list;
    let limit = match request.param("limit").map(str::parse::<usize>) {
        None => DEFAULT_LIMIT,
        Some(Ok(limit)) if (1..=MAX_LIMIT).contains(&limit) => limit,
        Some(_) => {
            return Err(error::parameter(
                "(#100) The parameter limit must be a number between 1 and 5000, please reduce the amount of data \
                 you're asking for, then retry your request",
            ));
        }
    };
    let bad_cursor = || error::parameter("(#100) Invalid parameter: the cursor is not valid anymore");
    let position = match (request.param("after"), request.param("before")) {
        (Some(after), _) => Position::read(after, name).ok_or_else(bad_cursor)?,
        (None, Some(before)) => {
            let end = Position::read(before, name).ok_or_else(bad_cursor)?;
            Position { offset: end.offset.saturating_sub(limit), ..end }
        }
        (None, None) => Position::default(),
    };
    if items.is_empty() {
        return Ok(json!({ "data": [] }));
    }
    let number = position.offset / limit + 1;
    let empty = *empty_page == Some(number) && !position.past_empty && position.offset < items.len();
    let shown = if empty { 0 } else { limit };
    let data: Vec<&Value> = items.iter().skip(position.offset).take(shown).collect();
    if most_rows.is_some_and(|most| data.len() > most) {
        return Err(error::too_much_data());
    }
    let end = position.offset.saturating_add(data.len());
    let after = Position { offset: end, past_empty: position.past_empty || empty }.cursor(name);
    let mut paging = json!({ "cursors": { "before": position.cursor(name), "after": after } });
    if let Some(paging) = paging.as_object_mut() {
        if end < items.len() {
            paging.insert("next".into(), json!(link(request, base_url, "after", &after)));
        }
        if position.offset > 0 {
            paging
                .insert("previous".into(), json!(link(request, base_url, "before", &position.cursor(name))));
        }
    }
    Ok(json!({ "data": data, "paging": paging }))
}

/// The URL of the same request with another cursor. It contains the token, as Meta's does.
fn link(request: &GraphRequest, base_url: &str, direction: &str, cursor: &str) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    if let Some(token) = request.access_token() {
        query.append_pair("access_token", token);
    }
    for (name, value) in &request.query {
        if !["access_token", "after", "before", "appsecret_proof"].contains(&name.as_str()) {
            query.append_pair(name, value);
        }
    }
    query.append_pair(direction, cursor);
    format!("{base_url}{}?{}", request.path, query.finish())
}
