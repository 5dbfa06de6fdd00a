//! A reader's terminal: a real shell in a throwaway folder.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

/// The longest time that a step may take.
const LIMIT: Duration = Duration::from_secs(120);
const LOOK: Duration = Duration::from_millis(10);

/// What the terminals of a document share.
pub(super) struct Desk {
    /// The folder of the scripts and their output, which the reader does not see.
    notes: PathBuf,
    environment: Vec<(String, String)>,
    steps: u32,
}

/// A shell that reads its commands from a pipe. Dropping it ends the shell and all processes that it started.
pub(super) struct Terminal {
    shell: Child,
    stdin: ChildStdin,
}

/// One step: a script, and the files for its output and its exit code.
struct Step {
    script: PathBuf,
    output: PathBuf,
    code: PathBuf,
}

impl Step {
    fn output(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.output).unwrap_or_default()).into_owned()
    }

    /// The exit code, once the step has ended.
    fn code(&self) -> Option<i32> {
        fs::read_to_string(&self.code).ok()?.strip_suffix('\n')?.parse().ok()
    }
}

impl Desk {
    pub(super) fn new(notes: PathBuf, environment: Vec<(String, String)>) -> Self {
        Self { notes, environment, steps: 0 }
    }

    pub(super) fn terminal(&self, folder: &Path) -> Terminal {
        let mut shell = Command::new("sh");
        shell.env_clear().envs(self.environment.iter().cloned()).current_dir(folder).process_group(0);
        let log = File::create(self.notes.join("shell.log")).expect("the notes can be written");
        shell.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(log);
        let mut shell = shell.spawn().expect("the documents need sh");
        let stdin = shell.stdin.take().expect("stdin is piped");
        Terminal { shell, stdin }
    }

    fn step(&mut self, commands: &str) -> Step {
        self.steps += 1;
        let file = |kind: &str| self.notes.join(format!("step-{}.{kind}", self.steps));
        let step = Step { script: file("sh"), output: file("out"), code: file("code") };
        fs::write(&step.script, commands).expect("the notes can be written");
        step
    }
}

impl Terminal {
    /// Runs all commands. Returns their output, which is an error if one of them failed.
    pub(super) fn run(&mut self, desk: &mut Desk, commands: &str) -> Result<String, String> {
        let step = desk.step(&format!("set -e\n{commands}"));
        self.send(&step);
        match self.ended(&step) {
            Some(0) => Ok(step.output()),
            code => Err(format!("exit code {code:?}\n{}", step.output())),
        }
    }

    /// Runs one command. Returns its exit code and its output.
    pub(super) fn call(&mut self, desk: &mut Desk, command: &str) -> (i32, String) {
        let step = desk.step(&format!("set +e\n{command}"));
        self.send(&step);
        (self.ended(&step).expect("a command does not end the shell"), step.output())
    }

    /// Runs commands until their output is as wanted, and leaves them running. It is an error if they end before that.
    pub(super) fn start(
        &mut self,
        desk: &mut Desk,
        commands: &str,
        wanted: impl Fn(&str) -> bool,
    ) -> Result<(), String> {
        let step = desk.step(&format!("set +e\n{commands}"));
        self.send(&step);
        let began = Instant::now();
        while !wanted(&step.output()) {
            if step.code().is_some() || began.elapsed() > LIMIT {
                return Err(step.output());
            }
            sleep(LOOK);
        }
        Ok(())
    }

    /// Does what Ctrl-C does: sends a signal to every process that the shell runs, but not to the shell, and waits for
    /// their end.
    pub(super) fn press_ctrl_c(&self) {
        assert!(self.ends_by(Signal::INT), "Ctrl-C does not end {:?}", descendants(self.shell.id()));
    }

    /// Whether all processes of the shell end after this signal.
    fn ends_by(&self, signal: Signal) -> bool {
        for pid in descendants(self.shell.id()) {
            // A process may just have ended by itself.
            let _ = kill_process(pid, signal);
        }
        let began = Instant::now();
        while !descendants(self.shell.id()).is_empty() {
            if began.elapsed() > LIMIT {
                return false;
            }
            sleep(LOOK);
        }
        true
    }

    fn send(&mut self, step: &Step) {
        let (script, output, code) = (step.script.display(), step.output.display(), step.code.display());
        let line = format!(". {script} </dev/null >{output} 2>&1; echo $? >{code}\n");
        self.stdin.write_all(line.as_bytes()).expect("the shell reads");
    }

    /// Waits for the step's end; `None` if it ended the shell.
    fn ended(&mut self, step: &Step) -> Option<i32> {
        let began = Instant::now();
        loop {
            if let Some(code) = step.code() {
                return Some(code);
            }
            if self.shell.try_wait().expect("a child can be waited for").is_some() {
                return None;
            }
            assert!(began.elapsed() < LIMIT, "does not end: {}", step.output());
            sleep(LOOK);
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.ends_by(Signal::TERM);
        let _ = kill_process_group(Pid::from_child(&self.shell), Signal::KILL);
        let _ = self.shell.wait();
    }
}

/// The processes that this one started, and those that they started.
fn descendants(parent: u32) -> Vec<Pid> {
    let listed = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap_or_default();
    let mut all = Vec::new();
    for child in listed.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()) {
        all.extend(i32::try_from(child).ok().and_then(Pid::from_raw));
        all.extend(descendants(child));
    }
    all
}

#[test]
fn a_step_that_fails_or_never_says_what_it_should_is_seen() {
    let home = tempfile::tempdir().expect("a temp folder");
    let environment = vec![("PATH".to_owned(), "/usr/bin:/bin".to_owned())];
    let mut desk = Desk::new(home.path().to_path_buf(), environment);
    let mut terminal = desk.terminal(home.path());
    assert_eq!(terminal.run(&mut desk, "NAME=reader\n"), Ok(String::new()));
    assert_eq!(terminal.call(&mut desk, "echo \"$NAME\"; false\n"), (1, "reader\n".into()));
    assert_eq!(
        terminal.start(&mut desk, "echo up; sleep 1000\n", |printed| printed.starts_with("up")),
        Ok(())
    );
    terminal.press_ctrl_c();
    assert_eq!(
        terminal.start(&mut desk, "echo other\n", |printed| printed.contains("up")),
        Err("other\n".into())
    );
    assert!(terminal.run(&mut desk, "false\ntrue\n").is_err());
}
