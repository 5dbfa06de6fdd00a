//! Chromium, as a person uses it. Every step waits until it is possible, and panics after a generous time.

mod driver;
pub mod http;
mod picture;

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::machine::tools;
use driver::{Driver, Refused};

/// How long a step may take on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(40);
/// The name that WebDriver gives the id of an element.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// A browser with a profile of its own, and so with cookies of its own. It ends when it is dropped.
#[derive(Debug)]
pub struct Browser {
    driver: Driver,
}

impl Browser {
    /// Starts a browser that keeps everything in `folder`.
    pub async fn start(folder: &Path) -> Self {
        Self { driver: Driver::start(folder, true).await }
    }

    /// Starts a browser whose user has switched JavaScript off.
    pub async fn without_javascript(folder: &Path) -> Self {
        Self { driver: Driver::start(folder, false).await }
    }

    /// Tries until it works.
    async fn until<T>(&self, what: &str, mut act: impl AsyncFnMut() -> Result<T, Refused>) -> T {
        let start = Instant::now();
        loop {
            let refused = match act().await {
                Ok(value) => return value,
                Err(refused) => refused,
            };
            if !refused.may_pass() || start.elapsed() > LIMIT {
                panic!("{what}: {refused}\n--- at {} ---\n{}", self.address().await, self.words().await);
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn address(&self) -> String {
        self.driver.get("/url").await.ok().and_then(|url| Some(url.as_str()?.to_owned())).unwrap_or_default()
    }

    /// What a person can read on the page now.
    pub async fn words(&self) -> String {
        self.text_now("body").await.unwrap_or_default()
    }

    pub async fn open(&self, url: &str) {
        self.until(&format!("open {url}"), async || self.driver.post("/url", json!({ "url": url })).await)
            .await;
    }

    pub async fn back(&self) {
        self.until("go back", async || self.driver.post("/back", json!({})).await).await;
    }

    pub async fn reload(&self) {
        self.until("load again", async || self.driver.post("/refresh", json!({})).await).await;
    }

    /// What the address bar shows.
    pub async fn url(&self) -> String {
        self.until("the address", async || self.driver.get("/url").await)
            .await
            .as_str()
            .unwrap_or_default()
            .into()
    }

    pub async fn title(&self) -> String {
        self.until("the title", async || self.driver.get("/title").await)
            .await
            .as_str()
            .unwrap_or_default()
            .into()
    }

    pub async fn source(&self) -> String {
        let source = self.until("the source", async || self.driver.get("/source").await).await;
        source.as_str().unwrap_or_default().into()
    }

    async fn find(&self, using: &str, value: &str) -> Result<String, Refused> {
        let found = self.driver.post("/element", json!({ "using": using, "value": value })).await?;
        Ok(found[ELEMENT].as_str().unwrap_or_default().to_owned())
    }

    async fn text_now(&self, css: &str) -> Result<String, Refused> {
        let element = self.find("css selector", css).await?;
        let text = self.driver.get(&format!("/element/{element}/text")).await?;
        Ok(text.as_str().unwrap_or_default().to_owned())
    }

    /// The visible text of the first element.
    pub async fn text(&self, css: &str) -> String {
        self.until(&format!("read {css}"), async || self.text_now(css).await).await
    }

    /// How many elements there are now.
    pub async fn count(&self, css: &str) -> usize {
        let query = json!({ "using": "css selector", "value": css });
        let found = self.until(css, async || self.driver.post("/elements", query.clone()).await).await;
        found.as_array().map_or(0, Vec::len)
    }

    /// Waits until there is such an element.
    pub async fn wait_for(&self, css: &str) {
        self.until(&format!("wait for {css}"), async || self.find("css selector", css).await).await;
    }

    /// Waits until the page shows these words, and returns all that it shows then.
    pub async fn sees(&self, words: &str) -> String {
        let start = Instant::now();
        loop {
            let shown = self.words().await;
            if shown.contains(words) {
                return shown;
            }
            assert!(
                start.elapsed() < LIMIT,
                "never shown: {words}\n--- at {} ---\n{shown}",
                self.address().await
            );
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Waits until the address bar holds these words.
    pub async fn is_at(&self, part: &str) {
        let start = Instant::now();
        while !self.address().await.contains(part) {
            let address = self.address().await;
            assert!(start.elapsed() < LIMIT, "never at {part}\n--- at {address} ---\n{}", self.words().await);
            tokio::time::sleep(PAUSE).await;
        }
    }

    pub async fn click(&self, css: &str) {
        self.until(&format!("click {css}"), async || self.click_now("css selector", css).await).await;
    }

    /// Presses the button, or follows the link, with exactly these words.
    pub async fn press(&self, words: &str) {
        let kinds = "self::button or self::a or self::summary";
        let path = format!("//*[{kinds}][normalize-space()='{words}']");
        self.until(&format!("press “{words}”"), async || self.click_now("xpath", &path).await).await;
    }

    async fn click_now(&self, using: &str, value: &str) -> Result<(), Refused> {
        let element = self.find(using, value).await?;
        self.driver.post(&format!("/element/{element}/click"), json!({})).await.map(drop)
    }

    /// Presses the left button of the mouse twice on an element, as fast as the browser can.
    pub async fn double_click(&self, css: &str) {
        self.until(&format!("double click {css}"), async || {
            let element = self.find("css selector", css).await?;
            let scroll = json!({ "script": "arguments[0].scrollIntoView()", "args": [{ ELEMENT: element }] });
            self.driver.post("/execute/sync", scroll).await?;
            let (down, up) =
                (json!({ "type": "pointerDown", "button": 0 }), json!({ "type": "pointerUp", "button": 0 }));
            let to = json!({ "type": "pointerMove", "duration": 0, "origin": { ELEMENT: element }, "x": 0, "y": 0 });
            let actions = json!({ "actions": [{
                "type": "pointer", "id": "mouse", "parameters": { "pointerType": "mouse" },
                "actions": [to, down, up, down, up],
            }]});
            self.driver.post("/actions", actions).await
        })
        .await;
    }

    /// Types into a field.
    pub async fn fill(&self, css: &str, text: &str) {
        self.until(&format!("fill {css}"), async || {
            let element = self.find("css selector", css).await?;
            self.driver.post(&format!("/element/{element}/value"), json!({ "text": text })).await
        })
        .await;
    }

    /// The cookies of the page's host, with those that no script sees.
    pub async fn cookies(&self) -> Vec<(String, String)> {
        let cookies = self.until("the cookies", async || self.driver.get("/cookie").await).await;
        let text = |cookie: &Value, name: &str| cookie[name].as_str().unwrap_or_default().to_owned();
        let all = cookies.as_array().cloned().unwrap_or_default();
        all.iter().map(|cookie| (text(cookie, "name"), text(cookie, "value"))).collect()
    }

    /// Opens a tab and goes there; returns the earlier one.
    pub async fn new_tab(&self) -> String {
        let earlier = self.until("the tab", async || self.driver.get("/window").await).await;
        let made = self
            .until("a tab", async || self.driver.post("/window/new", json!({ "type": "tab" })).await)
            .await;
        self.go_to_tab(made["handle"].as_str().unwrap_or_default()).await;
        earlier.as_str().unwrap_or_default().to_owned()
    }

    pub async fn go_to_tab(&self, tab: &str) {
        self.until("another tab", async || self.driver.post("/window", json!({ "handle": tab })).await).await;
    }

    /// The words of the dialog that a script opened, if there is one.
    pub async fn alert(&self) -> Option<String> {
        self.driver.get("/alert/text").await.ok().map(|text| text.to_string())
    }

    /// Runs a script, which returns its result.
    pub async fn run(&self, script: &str) -> Value {
        let script = json!({ "script": script, "args": [] });
        self.until("a script", async || self.driver.post("/execute/sync", script.clone()).await).await
    }

    async fn devtools(&self, command: &str, params: Value) -> Value {
        let command = json!({ "cmd": command, "params": params });
        self.until("the browser's tools", async || {
            self.driver.post("/goog/cdp/execute", command.clone()).await
        })
        .await
    }

    /// Gives the page this width. Below 500 pixels it is a phone.
    pub async fn width(&self, width: u32) {
        let mobile = width < 500;
        let height = if mobile { 640 } else { 500 };
        let screen = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": mobile });
        self.devtools("Emulation.setDeviceMetricsOverride", screen).await;
    }

    /// Shows pages as somebody sees them who prefers dark ones.
    pub async fn dark(&self, dark: bool) {
        let value = if dark { "dark" } else { "light" };
        let features = json!({ "features": [{ "name": "prefers-color-scheme", "value": value }] });
        self.devtools("Emulation.setEmulatedMedia", features).await;
    }

    /// Pictures the whole page as a small PNG.
    pub async fn screenshot(&self, file: &Path) {
        let size = self.devtools("Page.getLayoutMetrics", json!({})).await;
        let size = &size["cssContentSize"];
        let clip = json!({ "x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1 });
        let how = json!({ "format": "png", "captureBeyondViewport": true, "clip": clip });
        let picture = self.devtools("Page.captureScreenshot", how).await;
        let bytes = STANDARD.decode(picture["data"].as_str().unwrap_or_default()).expect("a picture");
        fs::write(file, picture::small(&bytes)).expect("the file can be written");
    }

    /// How many pixels of the page are beyond the right edge of the window.
    pub async fn overflow(&self) -> i64 {
        let script = "return document.documentElement.scrollWidth - document.documentElement.clientWidth";
        self.run(script).await.as_i64().expect("a number of pixels")
    }

    /// What axe finds that is serious or critical: the rule, and where.
    pub async fn barriers(&self) -> Vec<String> {
        let axe = fs::read_to_string(tools::axe()).expect("axe is installed");
        let found = self
            .run(&format!(
                "{axe}; return axe.run({{ resultTypes: ['violations'], preload: false }}).then(found => found.violations\
                 .filter(one => ['serious', 'critical'].includes(one.impact))\
                 .map(one => one.id + ': ' + one.nodes.map(node => node.html + ' ' + node.failureSummary).join(' | ')))"
            ))
            .await;
        let all = found.as_array().expect("axe tells what it finds").clone();
        all.iter().map(|one| one.as_str().unwrap_or_default().to_owned()).collect()
    }

    /// What the browser complained of since the last call, such as breaches of the page's policy.
    pub async fn complaints(&self) -> Vec<String> {
        // An address that is not there, and a result that has the focus already.
        let harmless = |entry: &Value, text: &str| entry["source"] == "network" || text.contains("Autofocus");
        let log = self.log("browser").await;
        let all = log.iter().map(|entry| (entry, entry["message"].as_str().unwrap_or_default()));
        all.filter(|(entry, text)| !harmless(entry, text)).map(|(_, text)| text.to_owned()).collect()
    }

    /// The addresses at which a page was shown since the last call, after all redirects.
    pub async fn visited(&self) -> Vec<String> {
        let log = self.log("performance").await;
        let events =
            log.iter().filter_map(|entry| serde_json::from_str::<Value>(entry["message"].as_str()?).ok());
        let shown = events.filter(|event| event["message"]["method"] == "Page.frameNavigated");
        shown
            .filter_map(|event| {
                let frame = &event["message"]["params"]["frame"];
                let fragment = frame["urlFragment"].as_str().unwrap_or_default();
                Some(format!("{}{fragment}", frame["url"].as_str()?))
            })
            .collect()
    }

    async fn log(&self, kind: &str) -> Vec<Value> {
        let log =
            self.until("a log", async || self.driver.post("/se/log", json!({ "type": kind })).await).await;
        log.as_array().cloned().unwrap_or_default()
    }
}
