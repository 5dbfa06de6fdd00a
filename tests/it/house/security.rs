//! SECURITY.md names the test behind each promise. This test checks that each of them exists.

use std::fs;
use std::path::Path;

use token_vault_tests::files_below;

/// The texts between backquotes that name a test: `module::name`, or `path/of/a/file.rs::name`.
fn named(text: &str) -> Vec<(&str, &str)> {
    let quoted = text.split('`').skip(1).step_by(2);
    let pairs = quoted.filter_map(|quoted| quoted.rsplit_once("::"));
    pairs
        .filter(|(place, name)| {
            let word = |text: &str| {
                text.bytes().all(|byte| byte.is_ascii_lowercase() || b"_0123456789".contains(&byte))
            };
            // Names of tests are sentences.
            word(name)
                && name.matches('_').count() >= 2
                && place.bytes().all(|byte| byte.is_ascii_lowercase() || b"_/.:0123456789".contains(&byte))
        })
        .collect()
}

/// The source at a path: a module of these tests with everything in its folder, or a file of the workspace.
fn source(root: &Path, place: &str) -> String {
    let files = if place.ends_with(".rs") {
        vec![root.join(place)]
    } else {
        let module = root.join("tests/it").join(place.replace("::", "/"));
        let mut files = files_below(&module);
        files.push(module.with_extension("rs"));
        files
    };
    files.iter().map(|file| fs::read_to_string(file).unwrap_or_default()).collect()
}

fn missing(root: &Path, text: &str) -> Vec<String> {
    let gone =
        named(text).into_iter().filter(|(place, name)| !source(root, place).contains(&format!("fn {name}(")));
    gone.map(|(place, name)| format!("{place}::{name}")).collect()
}

#[test]
fn every_test_that_security_md_names_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate stands in the workspace");
    let text = fs::read_to_string(root.join("SECURITY.md")).expect("SECURITY.md is there");
    let names = named(&text);
    assert!(names.len() > 50, "only {} tests are named", names.len());
    assert_eq!(missing(root, &text), Vec::<String>::new());
    let invented = "`house::security::every_test_that_nobody_wrote` and `keys::master_key::no_such_test`, but `std::mem::take` is none";
    assert_eq!(missing(root, invented).len(), 2);
}
