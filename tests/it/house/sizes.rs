//! Limits on the length of a file and on the number of names in a folder, so that each can be read in one go.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use token_vault_tests::files_below;

/// The folders with our source.
const SOURCE: [&str; 7] = ["client", "fuzz/src", "portal", "proto/src", "sandbox", "server", "tests"];
const LINES: usize = 450;
const NAMES: usize = 14;

/// Larger files, and why they stay in one piece.
const LARGER: [(&str, &str); 5] = [
    ("sandbox/src", "one file for each thing that the Graph API knows"),
    ("server/src", "one name for each floor and for each entry"),
    ("server/src/api", "what every call passes, in one place"),
    ("server/src/api/status.rs", "the table of errors: one match"),
    ("server/src/vault", "the wings, and what they share"),
];

/// The number of lines of each Rust file, and the number of names in each folder, by path.
fn sizes(root: &Path) -> (BTreeMap<String, usize>, BTreeMap<String, usize>) {
    let (mut files, mut folders) = (BTreeMap::new(), BTreeMap::<String, usize>::new());
    let mut names = std::collections::BTreeSet::new();
    for folder in SOURCE {
        for file in files_below(&root.join(folder)) {
            let path = file.strip_prefix(root).expect("it lies below");
            for (name, parent) in path.ancestors().zip(path.ancestors().skip(1)) {
                if !parent.as_os_str().is_empty() && names.insert(name.to_owned()) {
                    *folders.entry(parent.display().to_string()).or_default() += 1;
                }
            }
            if path.extension().is_some_and(|end| end == "rs") {
                let lines = fs::read_to_string(&file).expect("source is text").lines().count();
                files.insert(path.display().to_string(), lines);
            }
        }
    }
    (files, folders)
}

#[test]
fn no_file_is_too_long_and_no_folder_too_full() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate stands in the workspace");
    let (files, folders) = sizes(root);
    assert!(files.len() > 200, "the source is not where it was: {} files", files.len());
    let long = files.iter().filter(|(_, lines)| **lines > LINES);
    let full = folders.iter().filter(|(_, names)| **names > NAMES);
    let large: BTreeMap<_, _> = long.chain(full).map(|(path, size)| (path.as_str(), *size)).collect();
    let known: BTreeMap<_, _> = LARGER.into_iter().collect();
    let new: Vec<_> = large.iter().filter(|(path, _)| !known.contains_key(*path)).collect();
    assert!(new.is_empty(), "past {LINES} lines, or {NAMES} names: {new:#?}");
    let small: Vec<_> = known.keys().filter(|path| !large.contains_key(*path)).collect();
    assert!(small.is_empty(), "no longer large, and may leave the list: {small:#?}");
}
