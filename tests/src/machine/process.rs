use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tonic::transport::{Channel, Endpoint};

use crate::machine::binary::token_vault;

/// The longest time that a start or an end may take.
const LIMIT: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, Default)]
pub struct Launch {
    args: Vec<OsString>,
    env: Vec<(String, String)>,
    /// The soft and the hard limit of open files.
    open_files: Option<(u64, u64)>,
}

#[derive(Debug)]
pub struct Ended {
    /// The exit code. `None`: a signal ended the process.
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// A running process. Dropping it kills it.
#[derive(Debug)]
pub struct Process {
    child: Child,
    out: PathBuf,
    err: PathBuf,
    grpc: SocketAddr,
    admin: SocketAddr,
    /// `None` as soon as the process is known to have ended.
    life: Option<Arc<()>>,
}

impl Launch {
    pub fn new<A: Into<OsString>>(args: impl IntoIterator<Item = A>) -> Self {
        Self { args: args.into_iter().map(Into::into).collect(), ..Self::default() }
    }

    pub fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// Adds an environment variable. If a name comes twice, the later value wins.
    pub fn env(mut self, name: &str, value: impl Into<String>) -> Self {
        self.env.push((name.to_owned(), value.into()));
        self
    }

    /// Removes an environment variable.
    pub fn without(mut self, name: &str) -> Self {
        self.env.retain(|(other, _)| other != name);
        self
    }

    pub fn value(&self, name: &str) -> Option<&str> {
        self.env.iter().rev().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }

    /// Inserts an argument at `place`.
    pub fn arg_after(mut self, place: usize, arg: impl Into<OsString>) -> Self {
        self.args.insert(place, arg.into());
        self
    }

    /// The same settings with other words in place of the first one, the command.
    pub fn instead<A: Into<OsString>>(mut self, words: impl IntoIterator<Item = A>) -> Self {
        self.args.splice(..self.args.len().min(1), words.into_iter().map(Into::into));
        self
    }

    /// Allows the process that many open files from the start: as the soft and as the hard limit.
    pub fn open_files(self, soft: u64, hard: u64) -> Self {
        Self { open_files: Some((soft, hard)), ..self }
    }

    fn command(&self) -> Command {
        let mut command = match self.open_files {
            None => Command::new(token_vault()),
            Some((soft, hard)) => {
                let mut shell = Command::new("/bin/sh");
                let script = format!("ulimit -Sn {soft} && ulimit -Hn {hard} && exec \"$0\" \"$@\"");
                shell.arg("-c").arg(script).arg(token_vault());
                shell
            }
        };
        // No configuration of this machine may reach a test.
        command.args(&self.args).env_clear().stdin(Stdio::null());
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        command
    }

    pub fn run(&self) -> Ended {
        let done = self.command().output().expect("the binary runs");
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Ended { code: done.status.code(), stdout: text(done.stdout), stderr: text(done.stderr) }
    }

    /// Runs the command until it has written a wanted line, and then ends it by SIGINT, as Ctrl-C does.
    pub fn run_until(&self, wanted: impl Fn(&str) -> bool) -> Ended {
        let mut child =
            self.command().stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary runs");
        let stdout = child.stdout.take().expect("stdout is piped");
        let stdout = read_until(&child, stdout, wanted);
        let done = child.wait_with_output().expect("a child can be waited for");
        let stderr = String::from_utf8_lossy(&done.stderr).into_owned();
        Ended { code: done.status.code(), stdout, stderr }
    }

    /// Runs the command until it has logged a wanted line, and then ends it by SIGINT. Its standard output is dropped.
    pub fn run_until_it_logs(&self, wanted: impl Fn(&str) -> bool) -> Ended {
        let mut child =
            self.command().stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("the binary runs");
        let stderr = child.stderr.take().expect("stderr is piped");
        let stderr = read_until(&child, stderr, wanted);
        let status = child.wait().expect("a child can be waited for");
        Ended { code: status.code(), stdout: String::new(), stderr }
    }

    /// Starts a vault or a portal and waits until it is ready; its output goes to files in `folder`.
    pub fn serve(&self, folder: &Path, name: &str) -> Result<Process, Ended> {
        let (out, err) = (folder.join(format!("{name}.out")), folder.join(format!("{name}.err")));
        let open = |path: &Path| File::create(path).expect("the test's folder is writable");
        let mut child =
            self.command().stdout(open(&out)).stderr(open(&err)).spawn().expect("the binary runs");
        let start = Instant::now();
        loop {
            if let Some((grpc, admin)) = ready(&read(&out)) {
                return Ok(Process { child, out, err, grpc, admin, life: Some(Arc::new(())) });
            }
            if let Some(status) = child.try_wait().expect("a child can be waited for") {
                return Err(Ended { code: status.code(), stdout: read(&out), stderr: read(&err) });
            }
            if start.elapsed() > LIMIT {
                let _ = child.kill();
                panic!("not ready after {LIMIT:?}:\n{}{}", read(&out), read(&err));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

fn read(path: &Path) -> String {
    String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned()
}

/// Reads the addresses from the line that scripts wait for. A portal has only one.
fn ready(stdout: &str) -> Option<(SocketAddr, SocketAddr)> {
    let complete = stdout.split_inclusive('\n').filter(|line| line.ends_with('\n'));
    let mut lines = complete.map(str::trim_end);
    let (portal, line) = lines.find_map(|line| {
        let of = |start| line.strip_prefix(start);
        of("token-vault ready: ")
            .map(|rest| (false, rest))
            .or_else(|| of("token-vault portal ready: http=").map(|rest| (true, rest)))
    })?;
    let (grpc, admin) = line.split_once(' ')?;
    if portal {
        let http = grpc.parse().ok()?;
        return Some((http, http));
    }
    Some((grpc.strip_prefix("grpc=")?.parse().ok()?, admin.strip_prefix("admin=")?.parse().ok()?))
}

/// Reads what a command writes until a wanted line comes, then ends it by SIGINT, and reads the rest.
fn read_until(child: &Child, output: impl Read, wanted: impl Fn(&str) -> bool) -> String {
    let pid = Pid::from_child(child);
    // A command that writes nothing then fails its own test, and does not block the whole test run.
    let overdue = std::thread::spawn(move || {
        std::thread::park_timeout(LIMIT);
        let _ = kill_process(pid, Signal::INT);
    });
    let (mut text, mut lines) = (String::new(), BufReader::new(output));
    while lines.read_line(&mut text).expect("it writes text") > 0 {
        if text.lines().last().is_some_and(&wanted) {
            break;
        }
    }
    overdue.thread().unpark();
    overdue.join().expect("it only sends a signal");
    let _ = lines.read_to_string(&mut text);
    text
}

impl Process {
    pub fn grpc(&self) -> SocketAddr {
        self.grpc
    }

    /// A connection to the process, made when first used.
    pub fn channel(&self) -> Channel {
        channel_to(&format!("http://{}", self.grpc))
    }

    /// The address of the probes.
    pub fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// Its output so far, stdout first.
    pub fn output(&self) -> String {
        format!("{}{}", read(&self.out), read(&self.err))
    }

    /// Its log so far, which it writes to stderr.
    pub fn log(&self) -> String {
        read(&self.err)
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    pub fn terminate(&self) {
        kill_process(self.pid(), Signal::TERM).expect("the process is ours");
    }

    /// Stops it by SIGSTOP, as a suspended machine does.
    pub fn pause(&self) {
        kill_process(self.pid(), Signal::STOP).expect("the process is ours");
    }

    pub fn resume(&self) {
        kill_process(self.pid(), Signal::CONT).expect("the process is ours");
    }

    /// Kills it, like a power cut.
    pub fn kill(mut self) {
        self.child.kill().expect("the process is ours");
        self.child.wait().expect("a child can be waited for");
    }

    /// Its exit status. `None`: it still runs.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        let status = self.child.try_wait().expect("a child can be waited for");
        if status.is_some() {
            self.life = None;
        }
        status
    }

    /// Shows others whether it still runs, as far as its owner knows.
    pub(crate) fn life(&self) -> Weak<()> {
        self.life.as_ref().map(Arc::downgrade).unwrap_or_default()
    }

    /// Waits for its end; panics after a minute.
    pub fn wait(&mut self) -> ExitStatus {
        let start = Instant::now();
        loop {
            if let Some(status) = self.ended() {
                return status;
            }
            assert!(start.elapsed() < LIMIT, "does not end:\n{}", self.output());
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// A connection to a vault, made when first used.
pub(crate) fn channel_to(endpoint: &str) -> Channel {
    Endpoint::from_shared(endpoint.to_owned()).expect("a good URL").connect_lazy()
}

impl Drop for Process {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}
