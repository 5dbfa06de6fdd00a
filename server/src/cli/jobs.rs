//! `jobs`: what the vault does at set times, when, and how it went.

use anyhow::Context;
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use token_vault_client::v1::{Job, JobRun, ListJobRunsRequest, ListJobsRequest, RunJobRequest};

use super::connect::{CallerArgs, in_words};
use super::terminal::paint::{self, amber, green, red};
use super::terminal::program::program;
use super::terminal::say;
use super::terminal::screen::paragraphs;
use super::terminal::table::{Column, Fit, NOTHING, table};
use super::terminal::time::{from_wire, full, minute};

/// Arguments of `jobs`.
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "\
Examples:
  token-vault jobs
      The jobs, each with its latest run.
  token-vault jobs run meta-token-expiry
      Ask the providers about every token, now.
  token-vault jobs runs meta-token-expiry --json
      The latest runs of this job, for a program."
)]
pub(super) struct JobsArgs {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    list: ListArgs,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List the jobs, each with its latest run; the default.
    List(ListArgs),
    /// Start a job now, without waiting for its end.
    ///
    /// Where the job runs already, that run is shown.
    Run(RunArgs),
    /// List runs, the newest first.
    Runs(RunsArgs),
}

#[derive(Debug, Args)]
struct ListArgs {
    /// Print one JSON object a line in place of a table.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    caller: CallerArgs,
}

#[derive(Debug, Args)]
struct RunArgs {
    /// The job's name, as `jobs` shows it.
    #[arg(value_name = "NAME")]
    job: String,
    /// Print one JSON object in place of a sentence.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    caller: CallerArgs,
}

#[derive(Debug, Args)]
struct RunsArgs {
    /// Only the runs of this job.
    #[arg(value_name = "NAME")]
    job: Option<String>,
    /// How many at most, 1 to 1000.
    #[arg(long, value_name = "COUNT", default_value_t = 20, value_parser = clap::value_parser!(i32).range(1..=1_000))]
    limit: i32,
    /// Show every column, whole ids and whole times, on lines as long as they need.
    #[arg(long, conflicts_with = "json")]
    wide: bool,
    /// Print one JSON object a line in place of a table.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    caller: CallerArgs,
}

pub(super) async fn run(args: JobsArgs) -> anyhow::Result<()> {
    match args.command {
        None => list(args.list).await,
        Some(Command::List(args)) => list(args).await,
        Some(Command::Run(args)) => start(args).await,
        Some(Command::Runs(args)) => runs(args).await,
    }
}

async fn list(args: ListArgs) -> anyhow::Result<()> {
    let vault = args.caller.vault().await?;
    let jobs = vault.list_jobs(ListJobsRequest::default()).await.map_err(in_words)?.jobs;
    if args.json {
        return jobs.iter().try_for_each(|job| say(describe(job)));
    }
    let columns = [
        ("JOB", Column::Whole),
        ("CRON (UTC)", Column::Whole),
        ("NEXT RUN", Column::Whole),
        ("LATEST RUN", Column::Prose),
    ];
    let rows: Vec<_> = jobs
        .iter()
        .map(|job| {
            let time = |at: Option<_>| at.map_or(NOTHING.to_owned(), minute);
            let latest = job.last_run.as_ref();
            let latest = latest.map(|run| format!("{} {}", time(run.started_at), result(run)));
            [
                job.name.clone(),
                if job.cron.is_empty() { NOTHING.to_owned() } else { job.cron.clone() },
                time(job.next_run_at),
                latest.unwrap_or_else(|| NOTHING.to_owned()),
            ]
        })
        .collect();
    say(coloured(&table(columns, &rows, Fit::Screen)))
}

async fn start(args: RunArgs) -> anyhow::Result<()> {
    let vault = args.caller.vault().await?;
    let request = RunJobRequest { job: args.job, ..RunJobRequest::default() };
    let response = vault.run_job(request).await.map_err(in_words)?;
    let run = response.run.context("the vault answered without the run")?;
    if args.json {
        say(describe_run(&run))
    } else {
        let (job, program) = (&run.job, program());
        let begun =
            format!("{job} runs as {} on {}; see `{program} jobs runs {job}`", run.run_id, run.replica);
        say(paragraphs(&begun))
    }
}

async fn runs(args: RunsArgs) -> anyhow::Result<()> {
    let vault = args.caller.vault().await?;
    let (mut runs, mut page_token) = (Vec::new(), String::new());
    // A page may be short: its bytes are bounded too.
    loop {
        let page_size = args.limit - i32::try_from(runs.len())?;
        let request = ListJobRunsRequest { page_size, page_token, job: args.job.clone() };
        let page = vault.list_job_runs(request).await.map_err(in_words)?;
        runs.extend(page.runs);
        page_token = page.next_page_token;
        if page_token.is_empty() || runs.len() >= usize::try_from(args.limit)? {
            break;
        }
    }
    if args.json {
        return runs.iter().try_for_each(|run| say(describe_run(run)));
    }
    say(coloured(&if args.wide { wide_list(&runs) } else { short_list(&runs) }))
}

fn short_list(runs: &[JobRun]) -> String {
    let columns = [
        ("STARTED (UTC)", Column::Whole),
        ("JOB", Column::Whole),
        ("TOOK", Column::Whole),
        ("RESULT", Column::Prose),
    ];
    let rows: Vec<_> = runs
        .iter()
        .map(|run| {
            [run.started_at.map_or(NOTHING.to_owned(), minute), run.job.clone(), took(run), result(run)]
        })
        .collect();
    table(columns, &rows, Fit::Screen)
}

fn wide_list(runs: &[JobRun]) -> String {
    let names = ["RUN ID", "JOB", "FOR", "STARTED", "ENDED", "REPLICA", "RESULT"];
    let time = |at| full(at).unwrap_or_else(|| NOTHING.to_owned());
    let rows: Vec<_> = runs
        .iter()
        .map(|run| {
            [
                run.run_id.clone(),
                run.job.clone(),
                time(run.scheduled_for),
                time(run.started_at),
                time(run.ended_at),
                run.replica.clone(),
                result(run),
            ]
        })
        .collect();
    table(names.map(|name| (name, Column::Whole)), &rows, Fit::Wide)
}

/// How long the run lasted, to the second above a minute.
fn took(run: &JobRun) -> String {
    let Some((from, to)) = run.started_at.zip(run.ended_at) else { return NOTHING.to_owned() };
    let millis = from_wire(to).since(from_wire(from)).as_millis();
    match millis {
        0..1_000 => format!("{millis} ms"),
        1_000..60_000 => format!("{}.{} s", millis / 1_000, millis % 1_000 / 100),
        _ => format!("{} min {} s", millis / 60_000, millis % 60_000 / 1_000),
    }
}

/// Describes how the run went, such as "succeeded: 3 done" or "incomplete: 2 of 5 done, 1 failed, 3 left: why".
fn result(run: &JobRun) -> String {
    let done = run.done.saturating_sub(run.failed);
    let of = if run.total > done { format!(" of {}", run.total) } else { String::new() };
    let failed = if run.failed > 0 { format!(", {} failed", run.failed) } else { String::new() };
    let left = if run.remaining > 0 { format!(", {} left", run.remaining) } else { String::new() };
    let late = if run.catch_up { ", caught up after a downtime" } else { "" };
    let error = if run.error.is_empty() { String::new() } else { format!(": {}", run.error) };
    format!("{}: {done}{of} done{failed}{left}{late}{error}", state(run))
}

fn coloured(text: &str) -> String {
    paint::words(
        text,
        &[
            ("succeeded:", green),
            ("running:", amber),
            ("incomplete:", amber),
            ("failed:", red),
            ("abandoned:", red),
        ],
    )
}

fn describe(job: &Job) -> Value {
    json!({
        "name": job.name,
        "cron": job.cron,
        "next_run_at": full(job.next_run_at),
        "last_run": job.last_run.as_ref().map(describe_run),
    })
}

fn describe_run(run: &JobRun) -> Value {
    json!({
        "run_id": run.run_id,
        "job": run.job,
        "state": bare_state(run),
        "done": run.done,
        "total": run.total,
        "failed": run.failed,
        "remaining": run.remaining,
        "replica": run.replica,
        "error": run.error,
        "scheduled_for": full(run.scheduled_for),
        "started_at": full(run.started_at),
        "ended_at": full(run.ended_at),
        "catch_up": run.catch_up,
    })
}

fn bare_state(run: &JobRun) -> &'static str {
    let name = run.state().as_str_name();
    name.strip_prefix("STATE_").unwrap_or(name)
}

fn state(run: &JobRun) -> String {
    bare_state(run).to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use token_vault_client::Timestamp;
    use token_vault_client::v1::job_run;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: JobsArgs,
    }

    #[test]
    fn without_a_word_it_lists_and_a_limit_has_bounds() {
        let parse = |line: &str| Line::try_parse_from(line.split(' ')).map(|line| line.args);
        assert!(parse("jobs").unwrap().command.is_none());
        assert!(parse("jobs --json").unwrap().list.json);
        assert!(matches!(parse("jobs runs --limit 1000").unwrap().command, Some(Command::Runs(_))));
        assert!(parse("jobs runs --limit 0").is_err());
        assert!(parse("jobs run").is_err(), "a job has a name");
    }

    #[test]
    fn a_run_is_summed_up_in_a_sentence() {
        let at = |seconds, nanos| Some(Timestamp { seconds, nanos });
        let mut run = JobRun {
            done: 3,
            total: 3,
            started_at: at(10, 0),
            ended_at: at(10, 250_000_000),
            ..JobRun::default()
        };
        run.set_state(job_run::State::Succeeded);
        assert_eq!((result(&run).as_str(), took(&run).as_str()), ("succeeded: 3 done", "250 ms"));
        run.set_state(job_run::State::Failed);
        (run.total, run.failed, run.error, run.ended_at) = (5, 1, "no answer".into(), at(135, 0));
        assert_eq!(
            (result(&run).as_str(), took(&run).as_str()),
            ("failed: 2 of 5 done, 1 failed: no answer", "2 min 5 s")
        );
        run.set_state(job_run::State::Incomplete);
        run.remaining = 3;
        assert_eq!(result(&run), "incomplete: 2 of 5 done, 1 failed, 3 left: no answer");
        (run.catch_up, run.ended_at) = (true, None);
        assert!(result(&run).contains("caught up") && took(&run) == NOTHING);
    }
}
