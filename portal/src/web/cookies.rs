//! The cookies of the portal. They are all that it keeps of a visit, so any replica can answer the next request.
//!
//! They are `SameSite=Lax`: the provider's redirect to the callback comes from another site and must bring them, and
//! that is the only way in which another site gets them sent. So the embeddable card shows something only in frames of
//! pages of the portal's own site; `SameSite=None` would send the cookies with every request that any page starts.

use http::header::{COOKIE, HeaderMap, HeaderValue};

use super::link::LinkId;
use super::session::Session;

/// How long a link and a session stay in the browser without a visit: long enough for a person who has to find a
/// password, short enough for a shared computer.
const KEPT: u32 = 24 * 60 * 60;
/// An authorization ends after ten minutes.
const FLOW_KEPT: u32 = 600;
/// Links of one browser. More would make the `Cookie` header too long for servers, ours included.
const MOST_LINKS: usize = 20;

/// Makes the names and attributes of cookies, which depend on whether the portal is reached by HTTPS.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CookieJar {
    secure: bool,
}

impl CookieJar {
    pub(crate) const fn new(secure: bool) -> Self {
        Self { secure }
    }

    /// With the prefix, a browser takes the cookie only from this very host, so that no other subdomain can set it.
    /// Browsers refuse the prefix without HTTPS, which leaves development on a loopback address without it.
    fn name(self, rest: &str) -> String {
        format!("{}{rest}", if self.secure { "__Host-" } else { "" })
    }

    pub(crate) fn session_name(self) -> String {
        self.name("session")
    }

    pub(crate) fn link_name(self, id: &LinkId) -> String {
        self.name(&format!("link-{id}"))
    }

    /// The cookie that leads from a callback to its link. `hash` is the hash of the state, so the state itself, with
    /// which the callback must come, is not kept.
    pub(crate) fn flow_name(self, hash: &str) -> String {
        self.name(&format!("flow-{hash}"))
    }

    pub(crate) fn set_session(self, session: &Session) -> Option<HeaderValue> {
        self.set(&self.session_name(), session.expose(), KEPT)
    }

    pub(crate) fn set_link(self, id: &LinkId, token: &str) -> Option<HeaderValue> {
        self.set(&self.link_name(id), token, KEPT)
    }

    pub(crate) fn set_flow(self, hash: &str, id: &LinkId) -> Option<HeaderValue> {
        self.set(&self.flow_name(hash), id.as_str(), FLOW_KEPT)
    }

    pub(crate) fn clear_link(self, id: &LinkId) -> Option<HeaderValue> {
        self.clear(&self.link_name(id))
    }

    /// Deletes the oldest links of this browser, so that there is room for another one. Browsers send older cookies first.
    pub(crate) fn make_room(self, headers: &HeaderMap, new: &LinkId) -> Vec<HeaderValue> {
        let (prefix, new) = (self.name("link-"), self.link_name(new));
        let links = pairs(headers).map(|(name, _)| name);
        let links: Vec<_> = links.filter(|name| name.starts_with(&prefix) && *name != new).collect();
        let most = links.len().saturating_sub(MOST_LINKS - 1);
        links.into_iter().take(most).filter_map(|name| self.clear(name)).collect()
    }

    fn clear(self, name: &str) -> Option<HeaderValue> {
        self.set(name, "", 0)
    }

    fn set(self, name: &str, value: &str, max_age: u32) -> Option<HeaderValue> {
        let secure = if self.secure { "; Secure" } else { "" };
        let text = format!("{name}={value}; Path=/; Max-Age={max_age}; HttpOnly; SameSite=Lax{secure}");
        let mut header = HeaderValue::from_str(&text).ok()?;
        header.set_sensitive(true);
        Some(header)
    }
}

/// The value of the first cookie with this name.
pub(crate) fn get<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    pairs(headers).find(|(found, _)| *found == name).map(|(_, value)| value)
}

fn pairs(headers: &HeaderMap) -> impl Iterator<Item = (&str, &str)> {
    let all = headers.get_all(COOKIE).into_iter().filter_map(|header| header.to_str().ok());
    all.flat_map(|header| header.split(';')).filter_map(|pair| pair.trim().split_once('='))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link() -> LinkId {
        LinkId::parse("abcdefghijklmn27").unwrap()
    }

    #[test]
    fn over_https_they_are_bound_to_the_host() {
        let jar = CookieJar::new(true);
        assert_eq!(
            jar.set_link(&link(), "tvl_x").unwrap(),
            "__Host-link-abcdefghijklmn27=tvl_x; Path=/; Max-Age=86400; HttpOnly; SameSite=Lax; Secure"
        );
        assert_eq!(
            jar.set_flow("0123456789abcdef", &link()).unwrap(),
            "__Host-flow-0123456789abcdef=abcdefghijklmn27; Path=/; Max-Age=600; HttpOnly; SameSite=Lax; Secure"
        );
        assert_eq!(
            jar.clear_link(&link()).unwrap(),
            "__Host-link-abcdefghijklmn27=; Path=/; Max-Age=0; HttpOnly; SameSite=Lax; Secure"
        );
        assert!(jar.set_link(&link(), "tvl_x").unwrap().is_sensitive());
    }

    #[test]
    fn on_a_loopback_address_they_have_neither_prefix_nor_secure() {
        let jar = CookieJar::new(false);
        let session = Session::new();
        let cookie = jar.set_session(&session).unwrap();
        let expected = format!("session={}; Path=/; Max-Age=86400; HttpOnly; SameSite=Lax", session.expose());
        assert_eq!(cookie, expected.as_str());
    }

    #[test]
    fn a_cookie_is_found_among_others() {
        let mut headers = HeaderMap::new();
        headers.append(COOKIE, "a=1; link=first;b=2".parse().unwrap());
        headers.append(COOKIE, "link=second; c".parse().unwrap());
        assert_eq!((get(&headers, "link"), get(&headers, "b")), (Some("first"), Some("2")));
        assert_eq!((get(&headers, "c"), get(&headers, "lin")), (None, None));
    }

    #[test]
    fn there_is_room_for_twenty_links() {
        let jar = CookieJar::new(true);
        let mut headers = HeaderMap::new();
        for number in 0..22 {
            headers.append(COOKIE, format!("__Host-link-{number}=x").parse().unwrap());
        }
        let cleared = jar.make_room(&headers, &link());
        assert_eq!(cleared.len(), 3);
        assert!(
            cleared[0].to_str().unwrap().starts_with("__Host-link-0=; Path=/; Max-Age=0"),
            "the oldest one"
        );
        headers.insert(COOKIE, format!("__Host-link-{}=x", link()).parse().unwrap());
        assert!(jar.make_room(&headers, &link()).is_empty());
    }
}
