//! Where documents point: links lead somewhere.

use std::fs;
use std::path::Path;

use super::{documents, root};

/// The targets of `[text](target)`, without those on the web.
fn links(text: &str) -> impl Iterator<Item = &str> {
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    targets.filter(|target| !target.starts_with("http"))
}

/// The name by which a heading is linked.
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
