//! `jobs`: what the vault does by the clock, when, and what came of it.

use anyhow::Context;
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use token_vault_client::v1::{Job, JobRun, ListJobRunsRequest, ListJobsRequest, RunJobRequest, job_run};

use super::connect::{CallerArgs, in_words};
use super::terminal::paint::{amber, green, red};
use super::terminal::say;
use super::terminal::table::{cell, table, time};

/// Arguments of `jobs`.
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "\
Examples:
  token-vault jobs                                 the jobs, each with its latest run
  token-vault jobs run meta-token-expiry           ask Meta about every token, now
  token-vault jobs runs meta-token-expiry --json"
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
    /// Start a job now; does not wait for its end.
    ///
    /// Where it runs already, that run is shown.
    Run(RunArgs),
    /// List runs, the newest first.
    Runs(RunsArgs),
}

#[derive(Debug, Args)]
struct ListArgs {
    /// Print one JSON object a line instead of a table.
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
    /// Print one JSON object instead of a sentence.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    caller: CallerArgs,
}

#[derive(Debug, Args)]
struct RunsArgs {
    /// Only this job's runs.
    #[arg(value_name = "NAME")]
    job: Option<String>,
    /// How many at most, 1 to 1000.
    #[arg(long, value_name = "COUNT", default_value_t = 20, value_parser = clap::value_parser!(i32).range(1..=1_000))]
    limit: i32,
    /// Print one JSON object a line instead of a table.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    caller: CallerArgs,
}

/// Runs one of them.
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
    let mut rows =
        vec![["JOB", "CRON (UTC)", "NEXT RUN", "LAST RUN", "DONE", "FAILED", "STATE"].map(str::to_owned)];
    rows.extend(jobs.iter().map(|job| {
        let last = job.last_run.as_ref();
        let count = |count: Option<i64>| count.map_or("-".to_owned(), |count| count.to_string());
        [
            job.name.clone(),
            if job.cron.is_empty() { "-".to_owned() } else { job.cron.clone() },
            cell(job.next_run_at),
            cell(last.and_then(|run| run.started_at)),
            count(last.map(|run| run.done)),
            count(last.map(|run| run.failed)),
            // The last column: colours have a width of their own.
            last.map_or("-".to_owned(), state_in_colour),
        ]
    }));
    say(table(&rows))
}

async fn start(args: RunArgs) -> anyhow::Result<()> {
    let vault = args.caller.vault().await?;
    let request = RunJobRequest { job: args.job, ..RunJobRequest::default() };
    let run =
        vault.run_job(request).await.map_err(in_words)?.run.context("the vault answered without the run")?;
    if args.json {
        say(describe_run(&run))
    } else {
        say(format_args!(
            "{} runs as {} on {}; see `jobs runs {}`",
            run.job, run.run_id, run.replica, run.job
        ))
    }
}

async fn runs(args: RunsArgs) -> anyhow::Result<()> {
    let vault = args.caller.vault().await?;
    let request =
        ListJobRunsRequest { page_size: args.limit, job: args.job, ..ListJobRunsRequest::default() };
    let runs = vault.list_job_runs(request).await.map_err(in_words)?.runs;
    if args.json {
        return runs.iter().try_for_each(|run| say(describe_run(run)));
    }
    let mut rows = vec![
        ["RUN ID", "JOB", "FOR", "STARTED", "ENDED", "DONE", "FAILED", "REPLICA", "STATE"].map(str::to_owned),
    ];
    rows.extend(runs.iter().map(|run| {
        let done = if run.total > 0 { format!("{}/{}", run.done, run.total) } else { run.done.to_string() };
        let mut state = state_in_colour(run);
        if run.catch_up {
            state.push_str(", made up for");
        }
        if !run.error.is_empty() {
            state = format!("{state}: {}", run.error);
        }
        [
            run.run_id.clone(),
            run.job.clone(),
            cell(run.scheduled_for),
            cell(run.started_at),
            cell(run.ended_at),
            done,
            run.failed.to_string(),
            run.replica.clone(),
            state,
        ]
    }));
    say(table(&rows))
}

fn describe(job: &Job) -> Value {
    json!({
        "name": job.name,
        "cron": job.cron,
        "next_run_at": time(job.next_run_at),
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
        "replica": run.replica,
        "error": run.error,
        "scheduled_for": time(run.scheduled_for),
        "started_at": time(run.started_at),
        "ended_at": time(run.ended_at),
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

fn state_in_colour(run: &JobRun) -> String {
    let name = state(run);
    match run.state() {
        job_run::State::Succeeded if run.failed == 0 => green(&name),
        job_run::State::Failed | job_run::State::Abandoned => red(&name),
        _ => amber(&name),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

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
}
