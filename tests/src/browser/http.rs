//! A client for plain HTTP that follows no redirect and believes no page: what a browser would never send, it sends.

use std::collections::BTreeMap;

use axum::body::{Body, to_bytes};
use axum::http::header::{CONTENT_TYPE, COOKIE, HOST, LOCATION, SET_COOKIE};
use axum::http::{Request, Response, StatusCode, Uri};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// The largest page that a test reads.
const MOST: usize = 8 << 20;

/// Sends one request over a connection of its own, and reads the whole answer.
pub(crate) async fn send(mut request: Request<Body>) -> Result<Response<String>, String> {
    let told = |error: &dyn std::fmt::Display| error.to_string();
    let authority = request.uri().authority().expect("an absolute address").to_string();
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str()).to_owned();
    *request.uri_mut() = path.parse::<Uri>().expect("a path is an address");
    let host = authority.parse().expect("a host is a header's value");
    request.headers_mut().insert(HOST, host);
    let socket = TcpStream::connect(&authority).await.map_err(|error| told(&error))?;
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(socket)).await.map_err(|error| told(&error))?;
    let connection = tokio::spawn(connection);
    let response = sender.send_request(request).await.map_err(|error| told(&error))?;
    let (head, body) = response.into_parts();
    let body = to_bytes(Body::new(body), MOST).await.map_err(|error| told(&error))?;
    connection.abort();
    Ok(Response::from_parts(head, String::from_utf8_lossy(&body).into_owned()))
}

/// A visitor without a browser, who keeps the cookies of one host.
#[derive(Debug, Clone, Default)]
pub struct Visitor {
    cookies: BTreeMap<String, String>,
}

/// What a visitor was answered.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: StatusCode,
    /// Where the answer sends a browser; empty if nowhere.
    pub location: String,
    pub body: String,
}

impl Visitor {
    /// A visitor with these cookies, such as those of a browser.
    pub fn with(cookies: impl IntoIterator<Item = (String, String)>) -> Self {
        Self { cookies: cookies.into_iter().collect() }
    }

    pub fn cookies(&self) -> impl Iterator<Item = (&str, &str)> {
        self.cookies.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    pub async fn get(&mut self, url: &str) -> Answer {
        self.send(Request::get(url).body(Body::empty()).expect("a request")).await
    }

    /// Sends a form with these headers beside the usual ones.
    pub async fn post(&mut self, url: &str, form: &[(&str, &str)], headers: &[(&str, &str)]) -> Answer {
        let escape = |text: &str| -> String { text.bytes().map(|byte| format!("%{byte:02x}")).collect() };
        let pairs: Vec<_> =
            form.iter().map(|(name, value)| format!("{}={}", escape(name), escape(value))).collect();
        let mut request = Request::post(url).header(CONTENT_TYPE, "application/x-www-form-urlencoded");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.send(request.body(Body::from(pairs.join("&"))).expect("a request")).await
    }

    async fn send(&mut self, mut request: Request<Body>) -> Answer {
        let pairs: Vec<_> = self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        if !pairs.is_empty() {
            let cookies = pairs.join("; ").parse().expect("cookies are a header's value");
            request.headers_mut().insert(COOKIE, cookies);
        }
        let response = send(request).await.expect("the portal answers");
        for cookie in response.headers().get_all(SET_COOKIE) {
            let pair = cookie.to_str().expect("a cookie is text").split(';').next().unwrap_or_default();
            let (name, value) = pair.split_once('=').expect("a cookie has a name");
            match value {
                "" => drop(self.cookies.remove(name)),
                value => drop(self.cookies.insert(name.to_owned(), value.to_owned())),
            }
        }
        let location = response.headers().get(LOCATION).and_then(|location| location.to_str().ok());
        Answer {
            status: response.status(),
            location: location.unwrap_or_default().to_owned(),
            body: response.into_body(),
        }
    }
}

impl Answer {
    /// The value of the first field of this name in the page's forms.
    pub fn field(&self, name: &str) -> Option<&str> {
        let (_, rest) = self.body.split_once(&format!("name=\"{name}\" value=\""))?;
        rest.split('"').next()
    }
}
