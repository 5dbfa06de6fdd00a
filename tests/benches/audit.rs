//! What the audit log costs a caller of `FetchAccessToken`: calls per second, latency, and the vault's CPU time per
//! call. It compares a log, a log that flushes each record to the disk before the response, and, as the baseline, no
//! log.
//!
//! `cargo bench -p token-vault-tests --bench audit`. Three vaults run side by side on SQLite. Each is loaded for a few
//! seconds at a time, in turn, so that other load on the machine affects all of them alike. `ROUNDS` and `SECONDS` in
//! the environment change how often and how long.

use std::fmt::Display;
use std::fs;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use token_vault_proto::v1::FetchAccessTokenRequest;
use token_vault_proto::v1::token_vault_client::TokenVaultClient;
use token_vault_tests::prelude::*;
use tonic::Request;

/// How many callers call at the same time, each on its own connection.
const CALLERS: usize = 16;
/// How many connections of the vault the callers fetch tokens of.
const TOKENS: usize = 64;
/// Clock ticks of `/proc/<pid>/stat` a second: the same on every Linux that Rust runs on.
const TICKS: f64 = 100.0;

/// A vault and its measurements, one of each kind per round.
struct Subject {
    name: &'static str,
    world: World,
    tokens: Arc<Vec<String>>,
    rounds: Vec<Round>,
}

#[derive(Clone, Copy)]
struct Round {
    calls_per_second: f64,
    p50_us: f64,
    p99_us: f64,
    cpu_us_per_call: f64,
    log_bytes_per_call: f64,
}

impl Subject {
    async fn start(name: &'static str, key: &str, value: &str) -> Self {
        let world = World::builder(Backend::Sqlite)
            .config(key, value)
            .config("server.limits.per_principal_rps", "0")
            .config("log.level", "warn")
            .start()
            .await;
        let admin = world.admin();
        let mut tokens = Vec::new();
        for n in 0..TOKENS {
            tokens.push(admin.connect(ACME, &world.person(&format!("person {n}")).long_lived_token()).await);
        }
        Self { name, world, tokens: Arc::new(tokens), rounds: Vec::new() }
    }

    /// Loads the vault for a while.
    async fn round(&mut self, length: Duration) {
        let (cpu, bytes, start) = (self.cpu(), self.log_bytes(), Instant::now());
        let mut callers = Vec::new();
        for n in 0..CALLERS {
            callers.push(tokio::spawn(self.caller(n, start + length)));
        }
        let mut latencies = Vec::new();
        for caller in callers {
            latencies.extend(caller.await.expect("a caller ends"));
        }
        let took = start.elapsed();
        let calls = latencies.len() as f64;
        latencies.sort_unstable();
        let at = |share: f64| latencies[((calls - 1.0) * share) as usize].as_secs_f64() * 1e6;
        self.rounds.push(Round {
            calls_per_second: calls / took.as_secs_f64(),
            p50_us: at(0.5),
            p99_us: at(0.99),
            cpu_us_per_call: (self.cpu() - cpu) * 1e6 / calls,
            log_bytes_per_call: (self.log_bytes() - bytes) as f64 / calls,
        });
    }

    /// Fetches one token after another until `end`, and returns how long each call took.
    fn caller(&self, n: usize, end: Instant) -> impl Future<Output = Vec<Duration>> + use<> {
        let channel = World::channel_to(&self.world.endpoint());
        let authorization = format!("Bearer {}", self.world.admin().key()).parse().expect("a header's value");
        let tokens = Arc::clone(&self.tokens);
        async move {
            let mut client = TokenVaultClient::with_interceptor(channel, move |mut request: Request<()>| {
                request
                    .metadata_mut()
                    .insert("authorization", tonic::metadata::MetadataValue::clone(&authorization));
                Ok(request)
            });
            let mut latencies = Vec::new();
            for connection_id in tokens.iter().cycle().skip(n * TOKENS / CALLERS) {
                let begun = Instant::now();
                if begun >= end {
                    break;
                }
                let request =
                    FetchAccessTokenRequest { connection_id: connection_id.clone(), ..Default::default() };
                client.fetch_access_token(request).await.expect("the token is handed out");
                latencies.push(begun.elapsed());
            }
            latencies
        }
    }

    /// CPU time that the vault has used, in seconds.
    fn cpu(&self) -> f64 {
        let id = self.world.process(|process| process.id());
        let stat = fs::read_to_string(format!("/proc/{id}/stat")).expect("Linux tells it");
        // The fields follow the name, which may hold anything: user and system time are the 12th and 13th.
        let after = stat.rsplit_once(')').expect("a name in parentheses").1;
        let ticks = after.split_whitespace().skip(11).take(2);
        ticks.map(|ticks| ticks.parse::<f64>().expect("a number")).sum::<f64>() / TICKS
    }

    fn log_bytes(&self) -> u64 {
        let files = fs::read_dir(self.world.data()).expect("the data folder is there");
        let logs = files
            .map(|file| file.expect("an entry"))
            .filter(|file| file.file_name().to_string_lossy().starts_with("audit.jsonl"));
        logs.map(|file| file.metadata().expect("a file").len()).sum()
    }

    fn median(&self, of: impl Fn(&Round) -> f64) -> f64 {
        let mut values: Vec<_> = self.rounds.iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    }
}

fn setting<T: FromStr + Display>(name: &str, default: T) -> T {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn main() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(measure());
}

async fn measure() {
    let (rounds, seconds) = (setting("ROUNDS", 7_u32), setting("SECONDS", 4_u64));
    let mut subjects = [
        Subject::start("off", "audit.sink", "off").await,
        Subject::start("soon", "audit.sync", "soon").await,
        Subject::start("always", "audit.sync", "always").await,
    ];
    // The first round warms caches and connections, and does not count.
    for round in 0..=rounds {
        for subject in &mut subjects {
            subject.round(Duration::from_secs(if round == 0 { 1 } else { seconds })).await;
        }
        if round == 0 {
            subjects.iter_mut().for_each(|subject| subject.rounds.clear());
        }
        eprintln!("round {round} of {rounds}");
    }
    println!(
        "FetchAccessToken, {CALLERS} callers, SQLite; medians of {rounds} rounds of {seconds} s; (ratio to off)"
    );
    println!("| audit | calls/s | p50 µs | p99 µs | CPU µs/call | log B/call |");
    println!("| --- | --- | --- | --- | --- | --- |");
    for subject in &subjects {
        let cell = |of: fn(&Round) -> f64| {
            let value = subject.median(of);
            format!("{value:.0} ({:.2})", value / subjects[0].median(of))
        };
        println!(
            "| {} | {} | {} | {} | {} | {:.0} |",
            subject.name,
            cell(|round| round.calls_per_second),
            cell(|round| round.p50_us),
            cell(|round| round.p99_us),
            cell(|round| round.cpu_us_per_call),
            subject.median(|round| round.log_bytes_per_call),
        );
    }
}
