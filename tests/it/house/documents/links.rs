//! The targets of links in documents: each must exist, and so must the files that the guides for contributors name.

use std::fs;
use std::path::{Path, PathBuf};

use token_vault_tests::files_below;

use super::{documents, root};

/// The targets of `[text](target)`, except those on the web.
fn links(text: &str) -> impl Iterator<Item = &str> {
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    targets.filter(|target| !target.starts_with("http"))
}

/// The anchor of a heading.
fn anchor(heading: &str) -> String {
    let kept = heading.trim_start_matches('#').trim().to_lowercase();
    kept.chars()
        .filter(|c| c.is_alphanumeric() || " -_".contains(*c))
        .map(|c| if c == ' ' { '-' } else { c })
        .collect()
}

fn broken(document: &Path, target: &str) -> bool {
    let (file, wanted) = target.split_once('#').unwrap_or((target, ""));
    let file = match file {
        "" => document.to_path_buf(),
        file => document.parent().expect("a document lies in a folder").join(file),
    };
    if wanted.is_empty() {
        return !file.exists();
    }
    let text = fs::read_to_string(&file).unwrap_or_default();
    !text.lines().filter(|line| line.starts_with('#')).any(|heading| anchor(heading) == wanted)
}

/// The texts between backquotes that look like paths or names of source files.
fn paths(text: &str) -> impl Iterator<Item = &str> {
    let quoted = text.lines().flat_map(|line| line.split('`').skip(1).step_by(2));
    quoted.filter(|word| {
        let plain = word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-./".contains(&byte));
        let source = [".rs", ".proto", ".sql"].iter().any(|kind| word.ends_with(kind));
        plain && (source || word.contains('/')) && !word.starts_with("target/")
    })
}

/// Finds a file that a guide names from the workspace, from the server's source, or by its name alone.
fn is_there(path: &str, all: &[PathBuf]) -> bool {
    let from_the_top = root().join(path).exists() || root().join("server/src").join(path).exists();
    from_the_top || (!path.contains('/') && all.iter().any(|file| file.ends_with(path)))
}

#[test]
fn every_link_of_the_documents_leads_somewhere() {
    let mut wrong = Vec::new();
    for document in documents() {
        let text = fs::read_to_string(&document).expect("a document can be read");
        let dead = links(&text).filter(|target| broken(&document, target));
        wrong.extend(dead.map(|target| format!("{}: {target}", document.display())));
    }
    assert_eq!(wrong, Vec::<String>::new());
    assert!(
        broken(&root().join("README.md"), "docs/no-such-file.md")
            && broken(&root().join("README.md"), "#none")
    );
    assert_eq!(anchor("## At three in the morning, `token-vault`"), "at-three-in-the-morning-token-vault");
}

#[test]
fn every_file_that_the_guides_name_is_there() {
    let mut all = Vec::new();
    for folder in ["proto", "server", "client", "tests", "migrations", "sandbox"] {
        all.extend(files_below(&root().join(folder)));
    }
    let mut wrong = Vec::new();
    for guide in ["ARCHITECTURE.md", "CONTRIBUTING.md"] {
        let text = fs::read_to_string(root().join(guide)).unwrap_or_else(|error| panic!("{guide}: {error}"));
        wrong
            .extend(paths(&text).filter(|path| !is_there(path, &all)).map(|path| format!("{guide}: {path}")));
    }
    assert_eq!(wrong, Vec::<String>::new());
    assert!(
        !is_there("no_such_file.rs", &all)
            && is_there("server/src/main.rs", &all)
            && is_there("main.rs", &all)
    );
}
