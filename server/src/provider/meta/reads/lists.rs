//! Lists in pages. A page that is too large for Meta is halved, and a field that Meta refuses is dropped; the list goes
//! on from where it was.

use std::collections::HashSet;

use reqwest::Method;
use tokio::time::Instant;
use url::form_urlencoded;

use crate::model::{Refusal, RefusalKind, Secret};
use crate::provider::meta::http::Body;
use crate::provider::meta::wire::{Doubts, Json, Object, Told};
use crate::provider::meta::{Meta, refusal};

/// Entries per page of a list.
const ROWS: u32 = 200;
/// A page is not made smaller than this.
const FEWEST_ROWS: u32 = 10;
/// More requests than full pages would need, since pages may be short or empty.
const MOST_REQUESTS: usize = 250;
/// More requests for lists whose pages had to be made smaller.
const MOST_SMALL_PAGES: usize = 500;

/// What was read of a list.
pub(super) struct Listed {
    pub(super) entries: Vec<Json>,
    /// Whether the list ends here: no more entries than were asked for, and none that Meta could not send.
    pub(super) whole: bool,
    /// Whether the optional field was refused and left out.
    pub(super) dropped: bool,
}

/// Reads lists with one token, within one deadline. A page size that worked is kept for the lists that follow.
pub(super) struct Lister<'a> {
    meta: &'a Meta,
    token: &'a Secret,
    deadline: Instant,
    rows: u32,
    requests_left: usize,
    /// Whether the lists may stay unfinished: one that needs more requests is cut, and one that is not shown is left out.
    /// Otherwise the first counts as one without an end, and the other as a failure.
    spare: bool,
}

impl<'a> Lister<'a> {
    /// `rows`: what an earlier list learned.
    pub(super) fn new(meta: &'a Meta, token: &'a Secret, rows: Option<u32>) -> Self {
        let rows = rows.unwrap_or(ROWS).clamp(FEWEST_ROWS, ROWS);
        let requests_left = if rows == ROWS { MOST_REQUESTS } else { MOST_SMALL_PAGES };
        Self { meta, token, deadline: meta.http.deadline(), rows, requests_left, spare: false }
    }

    /// The lists that follow may stay unfinished: they are cut once all of them together have made this many requests.
    pub(super) const fn allow(&mut self, requests: usize) {
        self.requests_left = requests;
        self.spare = true;
    }

    /// The page size to begin with next time; `None` for the usual one.
    pub(super) fn learned_rows(&self) -> Option<u32> {
        (self.rows != ROWS).then_some(self.rows)
    }

    /// The entries of all pages, at most `most`. The address of the next page is built from the cursor, since the given
    /// address contains the token.
    pub(super) async fn list(
        &mut self,
        path: &[&str],
        fields: &str,
        optional: Option<&str>,
        most: usize,
    ) -> Result<Listed, Refusal> {
        let (mut after, mut seen) = (None::<String>, HashSet::new());
        let mut optional = optional;
        let mut list = Listed { entries: Vec::new(), whole: false, dropped: false };
        while self.requests_left > 0 {
            self.requests_left -= 1;
            let (rows, token) = (self.rows.to_string(), self.token);
            let wanted = optional.map_or_else(|| fields.to_owned(), |field| format!("{fields},{field}"));
            let (spare, is_optional) = (self.spare, optional.is_some());
            let make = |app_secret: &Secret| {
                let call = Meta::call_with_token(Method::GET, path, token, app_secret);
                let call = call.query("fields", &wanted).query("limit", &rows);
                let call = call.expecting(refusal::asks_for_less);
                let call = if spare { call.expecting(refusal::is_not_shown) } else { call };
                let call = if is_optional { call.expecting(refusal::may_be_about_a_field) } else { call };
                after.iter().fold(call, |call, after| call.query("after", after))
            };
            let page = match self.meta.ask(make, page, self.deadline).await {
                Ok(page) => page,
                Err(refusal) if refusal::asks_for_less(&refusal) => {
                    if self.rows == FEWEST_ROWS {
                        tracing::warn!(
                            path = path.join("/"),
                            "Meta does not send even the smallest page of a list"
                        );
                        return Ok(list);
                    }
                    if self.rows == ROWS && !self.spare {
                        self.requests_left = MOST_SMALL_PAGES;
                    }
                    self.rows = (self.rows / 2).max(FEWEST_ROWS);
                    continue;
                }
                Err(refusal) if optional.is_some() && refusal::may_be_about_a_field(&refusal) => {
                    (optional, list.dropped) = (None, true);
                    continue;
                }
                Err(refusal) => return Err(refusal),
            };
            list.entries.extend(page.entries);
            if list.entries.len() >= most {
                list.whole = list.entries.len() == most && page.next.is_none();
                if !list.whole {
                    tracing::warn!(most, "Meta lists more entries than are read");
                }
                list.entries.truncate(most);
                return Ok(list);
            }
            match page.next {
                None => {
                    list.whole = true;
                    return Ok(list);
                }
                Some(cursor) if cursor.is_empty() || !seen.insert(cursor.clone()) => return Err(endless()),
                Some(cursor) => after = Some(cursor),
            }
        }
        if self.spare { Ok(list) } else { Err(endless()) }
    }
}

/// Half a list would look as if accounts were lost.
fn endless() -> Refusal {
    let detail = "Meta's list goes in circles or has no end";
    Refusal::new(RefusalKind::Transient { retry_after: None }, detail)
}

/// One page of a list.
pub(super) struct Page {
    pub(super) entries: Vec<Json>,
    /// The cursor of the next page; `None` on the last page, empty when Meta gives none.
    pub(super) next: Option<String>,
}

/// The expected reply has a list. Where the list goes on must be known, since half of it would look like a loss.
pub(super) fn page(body: &mut Body<'_>) -> Option<Page> {
    let reply = body.object("list")?;
    let (mut cursor, mut next) = (None, None);
    match reply.object("paging") {
        Told::Known(paging) => {
            let cursors = paging.object("cursors").known();
            cursor = cursors.and_then(|cursors| cursors.text("after").known());
            next = match paging.text("next") {
                Told::Known(next) => Some(next),
                Told::Absent => None,
                Told::Implausible => return None,
            };
        }
        Told::Absent => {}
        Told::Implausible => return None,
    }
    let in_address = |next: &str| {
        let query = next.split_once('?').map_or("", |(_, query)| query);
        form_urlencoded::parse(query.as_bytes())
            .find_map(|(name, value)| (name == "after").then(|| value.into_owned()))
    };
    let cursor = cursor.filter(|after| !after.is_empty());
    let next = next
        .filter(|next| !next.is_empty())
        .map(|next| cursor.or_else(|| in_address(&next)).unwrap_or_default());
    let Some(Json::Object(fields)) = &mut body.json else { return None };
    match fields.remove("data")? {
        Json::List(entries) => Some(Page { entries, next }),
        _ => None,
    }
}

/// A business.
pub(super) struct Named {
    /// Digits, which may stand in a path.
    pub(super) id: String,
    pub(super) name: Option<String>,
}

/// The businesses of a list, each once, and whether the id of each could be read.
pub(super) fn page_of_named(entries: &[Json], doubts: Option<&Doubts>) -> (Vec<Named>, bool) {
    let mut known = HashSet::new();
    let objects = entries.iter().filter_map(|entry| Object::of(entry, "me/businesses", doubts));
    let named = objects
        .filter_map(|entry| Some(Named { id: entry.id("id").known()?, name: entry.name("name").known() }));
    let all: Vec<_> = named.collect();
    let whole = all.len() == entries.len();
    (all.into_iter().filter(|entry| known.insert(entry.id.clone())).collect(), whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_goes_on_only_while_there_is_a_next() {
        /// Entries, and the next page's cursor.
        type Row<'a> = (&'a str, Option<(usize, Option<&'a str>)>);
        let table: [Row<'_>; 12] = [
            (r#"{"data":[]}"#, Some((0, None))),
            (r#"{"data":[{"id":"1"}],"paging":{"cursors":{"after":"b"}}}"#, Some((1, None))),
            (
                r#"{"data":[],"paging":{"cursors":{"after":"b"},"next":"https://x/?after=c"}}"#,
                Some((0, Some("b"))),
            ),
            (
                r#"{"data":[],"paging":{"next":"https://x/?access_token=t&after=c%3D"}}"#,
                Some((0, Some("c="))),
            ),
            (r#"{"data":[],"paging":{"next":"https://x/?offset=5"}}"#, Some((0, Some("")))),
            (r#"{"data":[],"paging":null,"__debug__":{}}"#, Some((0, None))),
            (r#"{"data":{}}"#, None),
            // A list that may go on is not taken for a whole one.
            (r#"{"data":[],"paging":17}"#, None),
            (r#"{"data":[],"paging":{"next":17}}"#, None),
            (r#"{"data":[],"paging":{"cursors":5,"next":"https://x/?after=c"}}"#, Some((0, Some("c")))),
            (r#"{"data":[{"id":"1"}],"data":[]}"#, None),
            ("true", None),
        ];
        for (body, expected) in table {
            let page = page(&mut Body::read(body.as_bytes(), &Doubts::default()));
            let got = page.as_ref().map(|page| (page.entries.len(), page.next.as_deref()));
            assert_eq!(got, expected, "{body}");
        }
    }

    #[test]
    fn only_digits_of_a_business_get_into_a_path() {
        let entries = serde_json::json!([
            { "id": "888", "name": "Agency" }, { "id": "888", "name": "again" }, { "id": "../me" }, { "id": "" },
            { "name": "none" }, "text", { "id": "1".repeat(33) },
        ]);
        let Some(Json::List(entries)) = Json::parse(entries.to_string().as_bytes()) else { panic!("a list") };
        let (named, whole) = page_of_named(&entries, None);
        assert!(!whole, "some have no id");
        assert!(page_of_named(&entries[..2], None).1);
        assert_eq!(named.iter().map(|entry| entry.id.as_str()).collect::<Vec<_>>(), ["888"]);
        assert_eq!(named[0].name.as_deref(), Some("Agency"));
    }
}
