use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use http::header::{COOKIE, LOCATION, RETRY_AFTER, SET_COOKIE};
use http::{HeaderMap, Method, Request, StatusCode};
use tower::ServiceExt;

use super::{Portal, all};
use crate::config::tests::config;
use crate::config::{Limits, Logo, PortalConfig};
use crate::web::link::LinkId;
use crate::web::session::Session;

const ID: &str = "abcdefghijklmn27";
const TOKEN: &str = "tvl_abcdefghijklmn27_AbcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMN_-0";
const SECRET: &str = "AbcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMN_-0";
const STATE: &str = "s7ate-of-an-authorization";
const CODE: &str = "AQDc0de";
const PASTED: &str = "EAABpasted";

fn portal(change: impl FnOnce(&mut PortalConfig)) -> Router {
    let mut config = config("https://connect.example");
    change(&mut config);
    all(Arc::new(Portal::new(config).unwrap()))
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: String,
}

impl Answer {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map(|value| value.to_str().unwrap()).unwrap_or_default()
    }

    fn cookies(&self) -> Vec<&str> {
        self.headers.get_all(SET_COOKIE).iter().map(|value| value.to_str().unwrap()).collect()
    }
}

async fn send(routes: &Router, request: Request<Body>) -> Answer {
    let (parts, body) = routes.clone().oneshot(request).await.unwrap().into_parts();
    let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
    Answer { status: parts.status, headers: parts.headers, body: String::from_utf8_lossy(&body).into_owned() }
}

async fn get(routes: &Router, path: &str, cookies: &str) -> Answer {
    let request = Request::get(path).header(COOKIE, cookies).body(Body::empty()).unwrap();
    send(routes, request).await
}

async fn post(routes: &Router, path: &str, cookies: &str, body: String) -> Answer {
    let request = Request::post(path)
        .header(COOKIE, cookies)
        .header("origin", "null")
        .header("sec-fetch-site", "same-origin")
        .header("content-type", "application/x-www-form-urlencoded")
        .body(Body::from(body))
        .unwrap();
    send(routes, request).await
}

/// The cookies of a browser that has opened the link and began an authorization.
fn cookies(session: &Session) -> String {
    let flow = super::changes::flow_of(STATE);
    format!("__Host-link-{ID}={TOKEN}; __Host-session={}; __Host-flow-{flow}={ID}", session.expose())
}

fn callback() -> String {
    format!("/callbacks/meta?code={CODE}&state={STATE}")
}

#[tokio::test]
async fn the_mailed_link_moves_its_token_into_a_cookie() {
    let routes = portal(|_| {});
    for method in [Method::GET, Method::HEAD] {
        let path = format!("/l/{TOKEN}");
        let request = Request::builder().method(method).uri(path).body(Body::empty()).unwrap();
        let answer = send(&routes, request).await;
        assert_eq!(answer.status, StatusCode::SEE_OTHER);
        assert_eq!(answer.header("location"), format!("/card/{ID}"));
        assert_eq!(answer.header("referrer-policy"), "no-referrer");
        let cookies = answer.cookies();
        assert!(cookies[0].starts_with(&format!("__Host-link-{ID}={TOKEN}; Path=/; ")), "{cookies:?}");
        assert!(cookies[1].starts_with("__Host-session="), "{cookies:?}");
        assert!(cookies.iter().all(|c| c.ends_with("; HttpOnly; SameSite=Lax; Secure")), "{cookies:?}");
        assert!(answer.body.is_empty());
    }
    let session = Session::new();
    let again = get(&routes, &format!("/l/{TOKEN}"), &cookies(&session)).await;
    assert_eq!(again.cookies().len(), 1, "a session stays");
}

#[tokio::test]
async fn what_is_no_link_is_over() {
    let routes = portal(|_| {});
    for path in ["/l/tvl_x", "/l/%FF", "/l/tvl_abcdefghijklmn27_short", "/card/nope", "/card/%FF"] {
        let answer = get(&routes, path, "").await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{path}");
        assert!(answer.body.contains("This link is not valid any more"), "{path}");
        assert!(answer.cookies().is_empty());
    }
}

#[tokio::test]
async fn every_answer_is_guarded() {
    let routes = portal(|config| {
        config.frame_ancestors = vec!["https://app.example".into()];
        config.logo = Some(Logo { bytes: b"<svg/>".to_vec(), content_type: "image/svg+xml".into() });
    });
    let session = Session::new();
    let card = format!("/card/{ID}");
    let paths = [
        format!("/l/{TOKEN}"),
        card.clone(),
        format!("{card}.json"),
        format!("{card}/embed"),
        format!("{card}/connect"),
        callback(),
        "/callbacks/meta".into(),
        "/assets/portal.css".into(),
        "/assets/time.js".into(),
        "/assets/logo".into(),
        "/favicon.ico".into(),
        "/robots.txt".into(),
        "/healthz".into(),
        "/nowhere".into(),
    ];
    for path in &paths {
        let answer = get(&routes, path, &cookies(&session)).await;
        let policy = answer.header("content-security-policy");
        let embeddable = path.ends_with("/embed");
        let ancestors = if embeddable { "https://app.example" } else { "'none'" };
        assert_eq!(
            policy,
            format!(
                "default-src 'none'; style-src 'self'; img-src 'self'; script-src 'self'; form-action 'self'; \
                 base-uri 'none'; frame-ancestors {ancestors}"
            ),
            "{path}"
        );
        assert_eq!(answer.header("x-frame-options"), if embeddable { "" } else { "DENY" }, "{path}");
        assert_eq!(answer.header("referrer-policy"), "no-referrer", "{path}");
        assert_eq!(answer.header("cache-control"), "no-store", "{path}");
        assert_eq!(answer.header("x-content-type-options"), "nosniff", "{path}");
        assert_eq!(answer.header("strict-transport-security"), "max-age=31536000", "{path}");
        assert_eq!(answer.header("cross-origin-opener-policy"), "same-origin", "{path}");
        assert!(answer.header("permissions-policy").contains("camera=()"), "{path}");
    }
    let plain = portal(|config| config.public_url = "http://127.0.0.1:8080".into());
    let answer = get(&plain, "/healthz", "").await;
    assert_eq!((answer.status, answer.header("strict-transport-security")), (StatusCode::OK, ""));
}

#[tokio::test]
async fn without_the_cookies_one_has_to_start_again() {
    let routes = portal(|_| {});
    let session = Session::new();
    for (path, cookies) in [
        (format!("/card/{ID}"), String::new()),
        (format!("/card/{ID}"), format!("__Host-link-{ID}=tvl_other")),
        (callback(), String::new()),
        (callback(), format!("__Host-link-{ID}={TOKEN}")),
        (format!("/callbacks/meta?code={CODE}"), cookies(&session)),
        (format!("/callbacks/meta?code={CODE}&state=other"), cookies(&session)),
        ("/callbacks/meta".into(), cookies(&session)),
        (format!("/callbacks/%FF?code={CODE}&state=other"), cookies(&session)),
        (format!("/callbacks/meta?state={STATE}&x={}", "y".repeat(8192)), cookies(&session)),
    ] {
        let answer = get(&routes, &path, &cookies).await;
        if path.starts_with("/callbacks") {
            assert_eq!(
                answer.header("location"),
                "/start-again#",
                "{path}: code and state leave the address"
            );
            continue;
        }
        assert_eq!(answer.status, StatusCode::FORBIDDEN, "{path}");
        assert!(answer.body.contains("Start again from your link"), "{path}");
        assert!(answer.headers.get(LOCATION).is_none());
    }
    let answer = get(&routes, "/start-again", "").await;
    assert_eq!(answer.status, StatusCode::FORBIDDEN);
    assert!(answer.body.contains("Start again from your link"));
    let answer = get(&routes, &format!("/card/{ID}/embed"), "").await;
    assert!(answer.body.contains("can&#39;t be shown here") || answer.body.contains("can't be shown here"));
    let answer = get(&routes, &format!("/card/{ID}.json"), "").await;
    assert_eq!(answer.header("content-type"), "application/json");
}

#[tokio::test]
async fn an_unreachable_vault_is_no_fault_of_the_person() {
    let routes = portal(|_| {});
    let session = Session::new();
    for path in [format!("/card/{ID}"), format!("/card/{ID}.json"), format!("/card/{ID}/embed"), callback()] {
        let answer = get(&routes, &path, &cookies(&session)).await;
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{path}");
        assert!(answer.headers.get(RETRY_AFTER).is_some(), "{path}");
        assert!(answer.body.contains("The service does not answer right now"), "{path}");
        assert!(answer.headers.get(LOCATION).is_none(), "the person can load the callback again");
    }
}

#[tokio::test]
async fn no_answer_repeats_a_secret() {
    let routes = portal(|_| {});
    let session = Session::new();
    let csrf = session.csrf(&LinkId::parse(ID).unwrap());
    let mut bodies = Vec::new();
    for path in [format!("/card/{ID}"), format!("/card/{ID}.json"), format!("/card/{ID}/embed"), callback()] {
        bodies.push(get(&routes, &path, &cookies(&session)).await.body);
        bodies.push(get(&routes, &path, "").await.body);
    }
    for (step, csrf) in [("connect", csrf.as_str()), ("paste", &csrf), ("validate", &csrf), ("paste", "00")] {
        let body = format!("csrf={csrf}&access_token={PASTED}");
        bodies.push(post(&routes, &format!("/card/{ID}/{step}"), &cookies(&session), body).await.body);
    }
    bodies.push(get(&routes, &format!("/nowhere/{TOKEN}?state={STATE}"), &cookies(&session)).await.body);
    for body in bodies {
        for hidden in [SECRET, STATE, CODE, PASTED, session.expose(), &session.binding()] {
            assert!(!body.contains(hidden), "{hidden} in {body}");
        }
    }
}

/// What is logged, of all crates and at all levels.
#[derive(Clone, Default)]
struct Log(Arc<parking_lot::Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn no_secret_is_logged() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_ansi(false)
        .with_writer(move || writer.clone());
    // A subscriber of one thread misses what another thread came to first. This one sees the other tests too, which hide
    // the same.
    tracing::subscriber::set_global_default(subscriber.finish()).unwrap();
    let routes = portal(|config| config.limits.calls_per_minute_and_link = 20);
    let session = Session::new();
    let csrf = session.csrf(&LinkId::parse(ID).unwrap());
    get(&routes, &format!("/l/{TOKEN}"), "").await;
    for path in [format!("/card/{ID}"), callback()] {
        get(&routes, &path, &cookies(&session)).await;
    }
    for csrf in [&csrf, "00", &csrf] {
        let body = format!("csrf={csrf}&access_token={PASTED}");
        post(&routes, &format!("/card/{ID}/paste"), &cookies(&session), body).await;
    }
    let text = String::from_utf8(log.0.lock().clone()).unwrap();
    assert!(text.contains(ID) && text.contains("the vault did not do it"), "{text}");
    for hidden in [SECRET, STATE, CODE, PASTED, session.expose(), &session.binding(), &csrf] {
        assert!(!text.contains(hidden), "{hidden} in {text}");
    }
}

#[tokio::test]
async fn a_form_needs_the_session_that_got_it() {
    let routes = portal(|_| {});
    let (session, other, id) = (Session::new(), Session::new(), LinkId::parse(ID).unwrap());
    let body = |csrf: String| format!("csrf={csrf}&access_token=x");
    for step in ["connect", "paste", "validate"] {
        let path = format!("/card/{ID}/{step}");
        let good = post(&routes, &path, &cookies(&session), body(session.csrf(&id))).await;
        assert_eq!(good.status, StatusCode::SERVICE_UNAVAILABLE, "it comes as far as the vault");
        for wrong in [other.csrf(&id), String::new(), session.binding()] {
            let answer = post(&routes, &path, &cookies(&session), body(wrong)).await;
            assert_eq!(answer.status, StatusCode::FORBIDDEN, "{step}");
            assert!(answer.body.contains("Please press the button again"), "{step}");
        }
        let foreign = Request::post(&path)
            .header(COOKIE, cookies(&session))
            .header("origin", "https://evil.example")
            .header("content-type", "application/x-www-form-urlencoded")
            .body(Body::from(body(session.csrf(&id))))
            .unwrap();
        assert_eq!(send(&routes, foreign).await.status, StatusCode::FORBIDDEN, "{step}");
        let again = get(&routes, &path, &cookies(&session)).await;
        assert_eq!(
            (again.status, again.header("location")),
            (StatusCode::SEE_OTHER, "/card/abcdefghijklmn27")
        );
    }
}

#[tokio::test]
async fn too_much_from_one_address_or_for_one_link_waits() {
    let limits = Limits { requests_per_minute_and_address: 2, ..Limits::default() };
    let routes = portal(|config| config.limits = limits);
    for expected in [StatusCode::OK, StatusCode::OK, StatusCode::TOO_MANY_REQUESTS] {
        let answer = get(&routes, "/robots.txt", "").await;
        assert_eq!(answer.status, expected);
        assert_eq!(answer.headers.get(RETRY_AFTER).is_some(), expected == StatusCode::TOO_MANY_REQUESTS);
    }
    assert_eq!(get(&routes, "/healthz", "").await.status, StatusCode::OK);

    let limits = Limits { calls_per_minute_and_link: 1, ..Limits::default() };
    let routes = portal(|config| config.limits = limits);
    let session = Session::new();
    for expected in [StatusCode::SERVICE_UNAVAILABLE, StatusCode::TOO_MANY_REQUESTS] {
        assert_eq!(get(&routes, &format!("/card/{ID}"), &cookies(&session)).await.status, expected);
    }
    // A token that is made up has a bucket of its own.
    let other = cookies(&session).replace("_Abc", "_abc");
    let answer = get(&routes, &format!("/card/{ID}"), &other).await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn the_accent_is_in_the_stylesheet_in_both_schemes() {
    let routes = portal(|config| config.accent = Some("#ffee00".into()));
    let css = get(&routes, "/assets/portal.css", "").await;
    assert_eq!(css.header("content-type"), "text/css; charset=utf-8");
    assert_eq!(css.body.matches("--accent: #ffee00; --on-accent: #000000;").count(), 2);
    assert_eq!(get(&routes, "/assets/logo", "").await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn what_a_provider_sends_is_bounded_and_goes_to_the_vault() {
    let routes = portal(|_| {});
    let send_body = async |path: &str, size: usize| {
        let request = Request::post(path).body(Body::from("a".repeat(size))).unwrap();
        send(&routes, request).await
    };
    for path in ["/callbacks/meta/deauthorize", "/callbacks/meta/data-deletion", "/callbacks/meta/webhook"] {
        let answer = send_body(path, 256 * 1024).await;
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "it comes as far as the vault");
        assert_eq!(answer.header("cache-control"), "no-store");
        assert_eq!(send_body(path, 256 * 1024 + 1).await.status, StatusCode::PAYLOAD_TOO_LARGE);
        let long = format!("{path}?a={}", "a".repeat(8 * 1024));
        assert_eq!(get(&routes, &long, "").await.status, StatusCode::URI_TOO_LONG);
        let request = Request::delete(path).body(Body::empty()).unwrap();
        assert_eq!(send(&routes, request).await.status, StatusCode::METHOD_NOT_ALLOWED);
    }
    for code in ["a%20b", "%FF", "%3Cb%3E", &"a".repeat(65)] {
        let answer = get(&routes, &format!("/callbacks/meta/data-deletion/{code}"), "").await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{code}");
        assert!(answer.body.contains("There is no such request"), "{code}");
    }
}

#[tokio::test]
async fn a_provider_has_a_larger_bucket_of_its_own() {
    let limits = Limits {
        requests_per_minute_and_address: 1,
        callbacks_per_minute_and_address: 2,
        ..Limits::default()
    };
    let routes = portal(|config| config.limits = limits);
    for (path, expected) in [
        ("/robots.txt", StatusCode::OK),
        ("/robots.txt", StatusCode::TOO_MANY_REQUESTS),
        ("/callbacks/meta/webhook", StatusCode::SERVICE_UNAVAILABLE),
        ("/callbacks/meta/deauthorize", StatusCode::SERVICE_UNAVAILABLE),
        ("/callbacks/meta/webhook", StatusCode::TOO_MANY_REQUESTS),
    ] {
        assert_eq!(get(&routes, path, "").await.status, expected, "{path}");
    }
}
