//! The documents are true: the test runs every block of commands, output, configuration and code as it is printed.
//!
//! A block that can't run here carries a comment with the reason, which readers of the rendered document do not see:
//! `<!-- not run: needs Meta -->`. `markdown.rs` describes the other forms of such a comment.

mod links;
mod markdown;
mod terminal;

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use token_vault_tests::tools::grpcurl;
use token_vault_tests::{Database, files_below, shared_cluster, token_vault};
use tokio::sync::Mutex;

use markdown::{Block, Part, Run, commands, lacking, parts};
use terminal::{Desk, Terminal};

/// The ports that the documents name. Only one document may use them at a time.
const PORTS: [u16; 4] = [7443, 7444, 7480, 7500];
static DESK: Mutex<()> = Mutex::const_new(());

/// Readers type `cargo run`. The test has already built the binaries.
const CARGO: &str = r#"#!/bin/sh
[ "$1" = run ] || { echo "the test knows only cargo run, not: $*" >&2; exit 2; }
shift
program=token-vault
if [ "$1" = --bin ]; then program=$2; shift 2; fi
[ "$1" = -- ] && shift
exec "$program" "$@"
"#;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate stands in the workspace").to_path_buf()
}

fn documents() -> Vec<PathBuf> {
    let top = fs::read_dir(root()).expect("the workspace is there");
    let top = top.map(|entry| entry.expect("a folder can be read").path());
    let mut all: Vec<_> = top.chain(files_below(&root().join("docs"))).collect();
    all.retain(|file| file.extension().is_some_and(|kind| kind == "md"));
    all.sort();
    all
}

/// A reader who goes through one document from top to bottom.
struct Reader {
    name: String,
    folder: PathBuf,
    desk: Desk,
    terminal: Terminal,
    /// The terminals in which something stays up.
    others: Vec<Terminal>,
    run: usize,
    not_run: Vec<String>,
}

impl Reader {
    fn new(document: &Path, home: &Path, database_url: &str) -> Self {
        for port in PORTS {
            let free = TcpListener::bind(("127.0.0.1", port));
            free.unwrap_or_else(|error| {
                panic!("the documents use port {port}; stop what listens there: {error}")
            });
        }
        let (folder, notes, bin) = (home.join("clone"), home.join("notes"), home.join("bin"));
        let debug = folder.join("target/debug");
        for made in [&folder, &notes, &bin, &debug] {
            fs::create_dir_all(made).expect("the test's folder is writable");
        }
        fs::write(bin.join("cargo"), CARGO).expect("the test's folder is writable");
        fs::set_permissions(bin.join("cargo"), fs::Permissions::from_mode(0o755)).expect("a mode can be set");
        symlink(grpcurl(), bin.join("grpcurl")).expect("a link can be made");
        for program in ["token-vault", "token-vault-sandbox"] {
            for place in [&bin, &debug] {
                symlink(token_vault().with_file_name(program), place.join(program))
                    .expect("a link can be made");
            }
        }
        let environment = [
            ("PATH", format!("{}:/usr/local/bin:/usr/bin:/bin", bin.display())),
            ("HOME", home.display().to_string()),
            ("DATABASE_URL", database_url.to_owned()),
        ];
        let environment = environment.map(|(name, value)| (name.to_owned(), value)).to_vec();
        let desk = Desk::new(notes, environment);
        let terminal = desk.terminal(&folder);
        let name = document.strip_prefix(root()).unwrap_or(document).display().to_string();
        Self { name, folder, desk, terminal, others: Vec::new(), run: 0, not_run: Vec::new() }
    }

    fn read(&mut self, part: Part) {
        match part {
            Part::StopEverything => {
                self.others.clear();
                self.terminal = self.desk.terminal(&self.folder);
            }
            Part::Block(block) => {
                let place = format!("{}:{}", self.name, block.line);
                match (&block.run, block.language.split(',').next().unwrap_or_default()) {
                    (Run::Not(reason), _) => return self.not_run.push(format!("{place}: {reason}")),
                    (_, "text") => return self.not_run.push(format!("{place}: an illustration")),
                    (_, "sh") => self.commands(&place, &block),
                    (_, "console") => self.console(&place, &block),
                    (Run::SavedAs(file), "toml") => self.configuration(&place, file, &block.text),
                    (_, "rust") => compiled_as_a_doc_test(&self.name),
                    (_, language) => panic!("{place}: how is a block of {language:?} run?"),
                }
                self.run += 1;
            }
        }
    }

    fn commands(&mut self, place: &str, block: &Block) {
        let done = match &block.run {
            Run::StaysUp { after, elsewhere } => self.stay_up(&block.text, after, *elsewhere),
            Run::UntilCtrlC { after } => {
                let started = self
                    .terminal
                    .start(&mut self.desk, &block.text, |printed| printed.contains(after.as_str()));
                self.terminal.press_ctrl_c();
                started
            }
            _ => self.terminal.run(&mut self.desk, &block.text).map(drop),
        };
        done.unwrap_or_else(|output| panic!("{place} fails:\n{output}"));
    }

    /// Runs a block in its own terminal. The blocks after it are typed into a new one.
    fn stay_up(&mut self, text: &str, after: &str, elsewhere: bool) -> Result<(), String> {
        let folder = if elsewhere { self.folder.join("elsewhere") } else { self.folder.clone() };
        fs::create_dir_all(&folder).expect("the test's folder is writable");
        let mut terminal = self.desk.terminal(&folder);
        let started = terminal.start(&mut self.desk, text, |printed| printed.contains(after));
        self.others.push(terminal);
        self.terminal = self.desk.terminal(&self.folder);
        started
    }

    fn console(&mut self, place: &str, block: &Block) {
        for (command, shown) in commands(&block.text) {
            if matches!(block.run, Run::UntilCtrlC { .. }) {
                let as_shown = |printed: &str| lacking(&shown, printed).is_none();
                let started = self.terminal.start(&mut self.desk, &command, as_shown);
                self.terminal.press_ctrl_c();
                started
                    .unwrap_or_else(|output| panic!("{place}: {command}shows {shown}and prints:\n{output}"));
                continue;
            }
            let (code, output) = self.terminal.call(&mut self.desk, &command);
            let fails = shown.starts_with("ERROR");
            assert_eq!(code != 0, fails, "{place}: exit code {code}: {command}{output}");
            if let Some(word) = lacking(&shown, &output) {
                panic!("{place}: {command}shows {word:?} and prints:\n{output}");
            }
        }
    }

    /// Saves the file, and checks it with the real binary.
    fn configuration(&mut self, place: &str, file: &str, text: &str) {
        if file.starts_with("Cargo.toml") {
            let manifest = fs::read_to_string(root().join("client/Cargo.toml")).expect("the client is there");
            let name = "token-vault-client";
            assert!(
                text.contains(name) && manifest.contains(&format!("name = \"{name}\"")),
                "{place}: {text}"
            );
            return;
        }
        fs::write(self.folder.join(file), text).expect("the test's folder is writable");
        let check = format!("token-vault migrate --config {file} --data-dir checked\n");
        let (code, output) = self.terminal.call(&mut self.desk, &check);
        assert_eq!(code, 0, "{place} is no good configuration: {output}");
    }
}

/// Checks that the client crate includes the README in its documentation, so that `cargo test` compiles its program.
fn compiled_as_a_doc_test(document: &str) {
    let library = fs::read_to_string(root().join("client/src/lib.rs")).expect("the client is there");
    let included = format!("#[doc = include_str!(\"../../{document}\")]");
    assert!(library.contains(&included), "client/src/lib.rs does not say {included}");
}

/// Follows one document in its own folder.
async fn read(document: &Path) {
    let parts = parts(document);
    if !parts.iter().any(|part| matches!(part, Part::Block(_))) {
        return;
    }
    let _desk = DESK.lock().await;
    let home = tempfile::Builder::new().prefix("token-vault-doc-").tempdir().expect("a temp folder");
    let database = Database::postgres(shared_cluster()).await;
    let (document, url) = (document.to_path_buf(), database.url().to_owned());
    let reading = tokio::task::spawn_blocking(move || {
        let mut reader = Reader::new(&document, home.path(), &url);
        for part in parts {
            reader.read(part);
        }
        let (run, not_run) = (reader.run, &reader.not_run);
        println!(
            "{}: {run} blocks were run, {} were not\n{}",
            reader.name,
            not_run.len(),
            not_run.join("\n")
        );
    });
    reading.await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_block_of_the_readme_runs_as_it_is_printed() {
    read(&root().join("README.md")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_block_for_operators_runs_as_it_is_printed() {
    read(&root().join("docs/operating.md")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_block_of_the_other_documents_runs_as_it_is_printed() {
    let all = documents();
    let named = ["README.md", "docs/operating.md"].map(|name| root().join(name));
    assert!(named.iter().all(|name| all.contains(name)) && all.len() > 10, "{all:?}");
    for document in all.iter().filter(|document| !named.contains(document)) {
        read(document).await;
    }
}
