//! chromedriver: a process for each browser, and the few commands of the WebDriver protocol that tests need.
//!
//! The protocol is JSON over HTTP, so there is no crate for it here: the usual one brings a licence that `deny.toml`
//! does not allow.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::Request;
use axum::http::header::CONTENT_TYPE;
use serde_json::{Value, json};

use super::http::send;
use crate::machine::tools;

/// The longest time that a start or a command may take.
const LIMIT: Duration = Duration::from_secs(120);
/// How long a browser may take to end.
const ENDING: Duration = Duration::from_secs(30);

/// Why chromedriver did not do it: its name of the error, and its words.
#[derive(Debug, Clone)]
pub(crate) struct Refused {
    pub(crate) error: String,
    message: String,
}

/// A running chromedriver with one session. Dropping it ends both.
#[derive(Debug)]
pub(crate) struct Driver {
    child: Child,
    /// `http://127.0.0.1:PORT/session/ID`; empty before there is one.
    session: String,
}

impl Refused {
    /// Whether the page may just be changing, so that the same command may work in a moment.
    pub(crate) fn may_pass(&self) -> bool {
        let passing = [
            "no such element",
            "stale element reference",
            "element not interactable",
            "element click intercepted",
            "detached shadow root",
            "no such execution context",
            "javascript error",
            "unknown error",
        ];
        passing.contains(&self.error.as_str())
    }
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.error, self.message.lines().next().unwrap_or_default())
    }
}

impl Driver {
    /// Starts chromedriver and a browser, whose profile and logs are below `folder`.
    pub(crate) async fn start(folder: &Path, javascript: bool) -> Self {
        let (driver, browser) = tools::chromium();
        fs::create_dir_all(folder).expect("the test's folder is writable");
        let out = folder.join("chromedriver.out");
        let open = || File::create(&out).expect("the test's folder is writable");
        let child = Command::new(driver)
            .arg("--port=0")
            // What the browser wants to keep elsewhere than in its profile goes here as well.
            .env("HOME", folder)
            .env("TMPDIR", folder)
            .stdin(Stdio::null())
            .stdout(open())
            .stderr(Stdio::null())
            .spawn()
            .expect("chromedriver runs");
        let mut driver = Self { child, session: String::new() };
        let port = driver.port(&out);
        let base = format!("http://127.0.0.1:{port}/session");
        let mut options = json!({
            "binary": browser,
            "args": [
                "--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--no-first-run",
                "--disable-background-networking", "--disable-component-update", "--disable-sync",
                "--disable-extensions", "--mute-audio", "--hide-scrollbars", "--disable-lcd-text", "--no-proxy-server", "--window-size=1280,1000",
                // No name is asked of any server.
                "--host-resolver-rules=MAP *.example ~NOTFOUND",
                format!("--user-data-dir={}", folder.join("profile").display()),
            ],
        });
        if !javascript {
            options["prefs"] = json!({ "profile.managed_default_content_settings.javascript": 2 });
        }
        let wanted = json!({ "capabilities": { "alwaysMatch": {
            "goog:chromeOptions": options,
            "goog:loggingPrefs": { "browser": "ALL", "performance": "ALL" },
            "unhandledPromptBehavior": "ignore",
        }}});
        let made = command(&base, "POST", Some(wanted)).await;
        let made =
            made.unwrap_or_else(|error| panic!("Chromium does not start: {} {}", error.error, error.message));
        let id = made["sessionId"].as_str().expect("a session has an id").to_owned();
        driver.session = format!("{base}/{id}");
        driver
    }

    /// Waits for the line in which chromedriver says where it listens.
    fn port(&mut self, out: &Path) -> u16 {
        let start = Instant::now();
        loop {
            let text = fs::read_to_string(out).unwrap_or_default();
            let told = text.split_once("started successfully on port ").map(|(_, rest)| rest);
            if let Some((port, _)) = told.and_then(|rest| rest.split_once('.')) {
                return port.parse().expect("a port is a number");
            }
            let ended = self.child.try_wait().expect("a child can be waited for");
            assert!(
                ended.is_none() && start.elapsed() < LIMIT,
                "chromedriver does not start ({ended:?}): {text}"
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub(crate) async fn get(&self, path: &str) -> Result<Value, Refused> {
        command(&format!("{}{path}", self.session), "GET", None).await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Result<Value, Refused> {
        command(&format!("{}{path}", self.session), "POST", Some(body)).await
    }

    /// Ends the session, and with it the browser, which would outlive a killed driver and go on writing into its folder.
    fn end_session(&self) -> io::Result<()> {
        let address = self.session.trim_start_matches("http://");
        let Some((host, path)) = address.split_once('/') else { return Ok(()) };
        let mut socket = TcpStream::connect(host)?;
        socket.set_read_timeout(Some(ENDING))?;
        write!(socket, "DELETE /{path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")?;
        socket.read(&mut [0; 64]).map(drop)
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        let _ = self.end_session();
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn command(url: &str, method: &str, body: Option<Value>) -> Result<Value, Refused> {
    let body = body.map(|body| body.to_string());
    let request = Request::builder().method(method).uri(url).header(CONTENT_TYPE, "application/json");
    let request = request.body(body.map_or_else(Body::empty, Body::from)).expect("a request");
    let sent = tokio::time::timeout(LIMIT, send(request)).await;
    let lost = |message: String| Refused { error: "chromedriver does not answer".into(), message };
    let answer = sent.map_err(|_| lost(format!("after {LIMIT:?}: {url}")))?.map_err(lost)?;
    let mut text: Value = serde_json::from_str(answer.body()).unwrap_or_default();
    let value = text["value"].take();
    match value["error"].as_str() {
        Some(error) if !answer.status().is_success() => Err(Refused {
            error: error.into(),
            message: value["message"].as_str().unwrap_or_default().into(),
        }),
        _ => Ok(value),
    }
}
